"""Scheduler of a partition worker: decides its next step. It does not read, wait or commit.

In: the ledger of one partition, its intake, and the state of flow control and of the circuit breaker. Out: a step, which
the worker executes. Failed units go first, then events that an operator redrives, then new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.intake.base import Intake
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.coalesced_batches import CoalescedBatches
from headrace.delivery.partition.commit_pipeline import CommitPipeline
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.idle_windows import IdleWindows
from headrace.delivery.partition.key_order import turn
from headrace.delivery.partition.ledger import Lane, Ledger
from headrace.delivery.unit import FOREVER, Unit
from headrace.model.hop_limit import runs_away
from headrace.model.record import Chunk

MICROS = 1_000_000
SLICE_S = 30.0


class Wait(msgspec.Struct, frozen=True):
    """Nothing to run now.

    Attributes:
        seconds: When to decide again; None: when something has happened.
        readers: The indices of the readers that may get something to read earlier.
    """

    seconds: float | None
    readers: tuple[int, ...] = ()


class Redrive(msgspec.Struct, frozen=True):
    """Run the next event that waits behind this parked key."""

    lane: Lane


class SaveProgress(msgspec.Struct, frozen=True):
    """Commit positions that have moved without a run."""


class CloseWindows(msgspec.Struct, frozen=True):
    """Close open windows: no event has come for long, and all earlier ones are done."""


Step: TypeAlias = Unit | Wait | Redrive | SaveProgress | CloseWindows


class UnitScheduler:
    """Owned by one partition worker, of whose tasks one at a time calls it.

    Attributes:
        coalesced: How many batches go to an instance together now.
    """

    def __init__(
        self,
        claimed: ClaimedPartition,
        *,
        engine: Engine,
        gate: FlowGate,
        breaker: CircuitBreaker,
        commits: CommitPipeline,
        idle: IdleWindows | None = None,
    ) -> None:
        self.coalesced = CoalescedBatches(claimed.spec)
        self._claimed = claimed
        self._spec = claimed.spec
        self._streams = claimed.streams
        self._in_lanes = claimed.in_lanes
        self._clock = engine.clock
        self._telemetry = engine.telemetry
        self._gate = gate
        self._breaker = breaker
        self._commits = commits
        self._idle = idle
        self._looked = 0.0

    def open(self, ledger: Ledger, intake: Intake) -> None:
        """Start again with this ledger and an empty intake."""
        self._ledger = ledger
        self._intake = intake

    @property
    def _is_free(self) -> bool:
        """Return whether nothing requires more than the fast path."""
        return self._ledger.is_clear and self._gate.is_open and self._breaker.is_closed

    # --- reads -----------------------------------------------------------------------

    def admit(self, reader: int, chunks: Sequence[Chunk]) -> None:
        """Add chunks to the intake, without finished, unselected and left-out events."""
        stream = self._streams[reader]
        admitted = self._ledger.admit((stream, self._claimed.partition), chunks)
        if self._ledger.missed:
            self._record_missed()
        passing, left = self._gate.filter(stream, admitted)
        self._leave_out("sample", left)
        now = self._clock.monotonic()
        self._intake.add(reader, passing, now - self._age(passing))
        if self._idle is not None and passing:
            self._idle.event_came(now)

    def _record_missed(self) -> None:
        """Record events that retention has deleted; compaction only removes replaced events."""
        missed, self._ledger.missed = self._ledger.missed, []
        for each in missed:
            if each.stream not in self._claimed.compacted:
                self._telemetry.missed(
                    self._spec.name, self._claimed.partition, each, self._clock.now()
                )

    def _age(self, chunks: Sequence[Chunk]) -> float:
        """Return the seconds since the first of these was appended: a window counts from then, also after a crash."""
        return max(self._clock.now() - chunks[0].appended, 0) / MICROS if chunks else 0.0

    # --- fast path ------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Return whether a whole batch is ready, and nothing requires more than the fast path."""
        return self._intake.is_ready and self._is_free

    @property
    def runs_dry(self) -> bool:
        """Return whether nothing is ready only because more must be read."""
        return self._intake.runs_dry and self._ledger.is_clear and not self._commits.broken

    def take_ready(self) -> Unit | None:
        """Return the ready batch; None if it contains an endless chain, which takes the slow path."""
        (unit,) = self._ledger.units(self._take(self._clock.monotonic()))
        for chunk in unit.chunks:
            if runs_away(chunk.hops):
                self._ledger.pending.append(unit)
                return None
        return unit

    # --- slow path -----------------------------------------------------------------------

    def before_reading(self) -> Step | None:
        """Return the step before anything new is read; None if there is none."""
        pending = self._ledger.pending
        if pending:
            now = self._clock.now()
            place, due = self._turn(now)
            if place is not None:
                head = pending[place]
                del pending[place]
                return head
            if not self._in_lanes:
                # In the order of the log a failed unit delays everything behind it.
                return Wait(self._wait_s(due, now))
        redriving = self._ledger.redriving()
        for lane, is_draining in self._ledger.parked.items():
            if is_draining and lane not in redriving:
                return Redrive(lane)
        if self._gate.keeps_time:
            self._intake.look(self._clock.now())
        self._looked = self._clock.monotonic()
        return None

    def after_reading(self, asked: Sequence[int], *, has_read: bool) -> Step | None:
        """Return the step after a read of the log; None: read again.

        Args:
            asked: The indices of the readers that were read.
            has_read: Whether one of them had something.
        """
        if has_read and self._gate.reads_first:
            # The next read may replace events of this one.
            self._take_left_out()
            return None
        now = self._clock.monotonic()
        wait_s = self._intake.wait(now)
        if wait_s == 0.0 and (taken := self._take(now)):
            is_clear = self._ledger.is_clear and not self._in_lanes
            units = self._ledger.units(taken)
            self._take_left_out()
            if is_clear:
                # No part of it has failed before, and no unit is ahead of it.
                return units[0]
            # Through `pending`, where a unit that has failed before waits until it is due.
            self._ledger.pending.extend(units)
            return None
        self._take_left_out()
        if wait_s == 0.0 or has_read:
            return None
        has_asked_all = len(asked) == len(self._streams)
        if not self._commits.commits and (
            self._ledger.is_ahead or (has_asked_all and self._gate.clears())
        ):
            # Nothing to run, but filtered and deleted events move the position as well.
            return SaveProgress()
        # By the time of the read: later events may not have been read.
        if self._idle is not None and wait_s is None and self._idle.is_due(self._looked):
            return CloseWindows()
        waits = (wait_s, self._retry_wait(), self._gate.clears_in())
        return Wait(min((each for each in waits if each is not None), default=None), tuple(asked))

    def _take(self, now: float) -> tuple[Chunk, ...]:
        """Take the next batch, or a group of coalesced batches if nothing delays any event."""
        return self._intake.take(now, self.coalesced.size if self._is_free else 1)

    # --- failed units -----------------------------------------------------------------

    def _turn(self, now: int) -> tuple[int | None, int]:
        """Return the index in `pending` of the unit to run now, or None; and when one is due."""
        ledger = self._ledger
        if not self._in_lanes:
            due = ledger.pending[0].due
            return (0, due) if due <= now else (None, due)
        if not ledger.is_split:
            return 0, now
        rules = self._gate.rules
        # Units cut from one batch may share keys: the effects of one must be committed before the
        # next one runs, as between two batches.
        landing = Unit(tuple(self._commits.unfinished()))
        return turn(
            ledger.pending,
            (*ledger.running, landing),
            now,
            by_key=rules.by_key,
            together=rules.together,
        )

    def _wait_s(self, due: int, now: int) -> float | None:
        """Return the seconds until `due`; None if only an operator ends the wait."""
        if due >= FOREVER:
            return None
        wait_s = (due - now) / MICROS
        if wait_s > self._spec.retry.max_delay + SLICE_S:
            # No policy delays a retry that long: the wall clock was set back since.
            self._ledger.limit_due(now + int(self._spec.retry.max_delay * MICROS))
        # In slices, so that a wall clock that is set forward is noticed soon.
        return min(wait_s, SLICE_S)

    def _retry_wait(self) -> float | None:
        """Return the seconds until a pending unit is due; None if none waits for a time."""
        if not self._ledger.pending:
            return None
        now = self._clock.now()
        return self._wait_s(self._turn(now)[1], now)

    # --- left-out events -------------------------------------------------------------------

    def _take_left_out(self) -> None:
        for chunk, why in self._intake.left_out():
            self._leave_out(why, (chunk,))

    def _leave_out(self, why: str, chunks: Sequence[Chunk]) -> None:
        """Mark events as done, and record why they are left out."""
        if chunks:
            self._ledger.leave_out(chunks)
            self._telemetry.left_out(self._spec.name, why, chunks, self._clock.now())
