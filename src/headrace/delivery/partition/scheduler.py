"""What a partition worker does next. Decides only: it reads nothing, waits for nothing, commits nothing.

In: the ledger of one partition, its intake, and what flow control and the circuit breaker let go. Out: a
step, which the worker carries out. What failed before goes first, then what an operator redrives, then
what is new.
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
        seconds: When to ask again; None: when something has happened.
        readers: Those that may have something to read before, by their places.
    """

    seconds: float | None
    readers: tuple[int, ...] = ()


class Redrive(msgspec.Struct, frozen=True):
    """The next event that waits behind this parked key is to be run."""

    lane: Lane


class SaveProgress(msgspec.Struct, frozen=True):
    """Positions have moved without a run: they are to be committed."""


class CloseWindows(msgspec.Struct, frozen=True):
    """Nothing has come for long, and all that came is done: open windows are to be closed."""


Step: TypeAlias = Unit | Wait | Redrive | SaveProgress | CloseWindows


class UnitScheduler:
    """Owned by one partition worker, of whose tasks one at a time asks it.

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
        """Begin again with this ledger and an empty intake."""
        self._ledger = ledger
        self._intake = intake

    @property
    def _is_free(self) -> bool:
        """Whether nothing asks for another way than straight on."""
        return self._ledger.is_clear and self._gate.is_open and self._breaker.is_closed

    # --- what is read -----------------------------------------------------------------------

    def admit(self, reader: int, chunks: Sequence[Chunk]) -> None:
        """Lay what was read behind what waits, save what is finished, not meant or left out."""
        stream = self._streams[reader]
        admitted = self._ledger.admit((stream, self._claimed.partition), chunks)
        if self._ledger.missed:
            self._record_missed()
        passing, left = self._gate.sift(stream, admitted)
        self._leave_out("sample", left)
        now = self._clock.monotonic()
        self._intake.add(reader, passing, now - self._age(passing))
        if self._idle is not None and passing:
            self._idle.event_came(now)

    def _record_missed(self) -> None:
        """Record what retention has taken; what compaction takes, nobody is meant to see."""
        missed, self._ledger.missed = self._ledger.missed, []
        for each in missed:
            if each.stream not in self._claimed.compacted:
                self._telemetry.missed(
                    self._spec.name, self._claimed.partition, each, self._clock.now()
                )

    def _age(self, chunks: Sequence[Chunk]) -> float:
        """Seconds since the log took the first of these: a window counts from then, over any crash."""
        return max(self._clock.now() - chunks[0].appended, 0) / MICROS if chunks else 0.0

    # --- straight on ------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether a whole batch lies ready, and nothing asks for another way than straight on."""
        return self._intake.is_ready and self._is_free

    @property
    def runs_dry(self) -> bool:
        """Whether nothing is ready for want of reading alone."""
        return self._intake.runs_dry and self._ledger.is_clear and not self._commits.broken

    def take_ready(self) -> Unit | None:
        """The batch that lies ready; None where a look at it says that it goes another way."""
        (unit,) = self._ledger.units(self._take(self._clock.monotonic()))
        for chunk in unit.chunks:
            if runs_away(chunk.hops):
                self._ledger.pending.append(unit)
                return None
        return unit

    # --- step by step -----------------------------------------------------------------------

    def before_reading(self) -> Step | None:
        """What is to be done before anything new is read; None where nothing is."""
        pending = self._ledger.pending
        if pending:
            now = self._clock.now()
            place, due = self._turn(now)
            if place is not None:
                head = pending[place]
                del pending[place]
                return head
            if not self._in_lanes:
                # What failed holds up everything behind it.
                return Wait(self._patience(due, now))
        redriving = self._ledger.redriving()
        for lane, is_draining in self._ledger.parked.items():
            if is_draining and lane not in redriving:
                return Redrive(lane)
        if self._gate.keeps_time:
            self._intake.look(self._clock.now())
        self._looked = self._clock.monotonic()
        return None

    def after_reading(self, asked: Sequence[int], *, has_read: bool) -> Step | None:
        """What is to be done now that there was a look at the log; None: look again.

        Args:
            asked: The readers that were asked, by their places.
            has_read: Whether one of them had something.
        """
        if has_read and self._gate.reads_first:
            # What is read next may take the place of what was read now.
            self._take_left_out()
            return None
        now = self._clock.monotonic()
        wait_s = self._intake.wait(now)
        if wait_s == 0.0 and (taken := self._take(now)):
            is_clear = self._ledger.is_clear and not self._in_lanes
            units = self._ledger.units(taken)
            self._take_left_out()
            if is_clear:
                # Nothing of it has failed before, and nothing stands before it.
                return units[0]
            # They pass through `pending`, where a unit that has failed before waits its time.
            self._ledger.pending.extend(units)
            return None
        self._take_left_out()
        if wait_s == 0.0 or has_read:
            return None
        has_asked_all = len(asked) == len(self._streams)
        if not self._commits.commits and (
            self._ledger.is_ahead or (has_asked_all and self._gate.clears())
        ):
            # Nothing to run, but something was filtered out or is gone: that is progress too.
            return SaveProgress()
        # By the time of the look: what came after it may not have been read.
        if self._idle is not None and wait_s is None and self._idle.is_due(self._looked):
            return CloseWindows()
        waits = (wait_s, self._retry_wait(), self._gate.clears_in())
        return Wait(min((each for each in waits if each is not None), default=None), tuple(asked))

    def _take(self, now: float) -> tuple[Chunk, ...]:
        """The next batch, or a group of coalesced batches where nothing holds anything up."""
        return self._intake.take(now, self.coalesced.size if self._is_free else 1)

    # --- what failed before -----------------------------------------------------------------

    def _turn(self, now: int) -> tuple[int | None, int]:
        """The place in `pending` of the unit to run now, or None; and when one is due."""
        ledger = self._ledger
        if not self._in_lanes:
            due = ledger.pending[0].due
            return (0, due) if due <= now else (None, due)
        if not ledger.is_split:
            return 0, now
        rules = self._gate.rules
        # A lane is one key's, but units cut from one batch may share keys: what one of them has done is
        # kept before the next one runs, as between two batches.
        landing = Unit(tuple(self._commits.unfinished()))
        return turn(
            ledger.pending,
            (*ledger.running, landing),
            now,
            by_key=rules.by_key,
            together=rules.together,
        )

    def _patience(self, due: int, now: int) -> float | None:
        """Seconds to wait for what is due then; None where only an operator ends the wait."""
        if due >= FOREVER:
            return None
        wait_s = (due - now) / MICROS
        if wait_s > self._spec.retry.max_delay + SLICE_S:
            # No retry is that far away: the wall clock was set back since it was planned.
            self._ledger.hasten(now + int(self._spec.retry.max_delay * MICROS))
        # In slices, so that a wall clock set forward is noticed soon.
        return min(wait_s, SLICE_S)

    def _retry_wait(self) -> float | None:
        """Seconds until something of `pending` is due; None where nothing waits for a time."""
        if not self._ledger.pending:
            return None
        now = self._clock.now()
        return self._patience(self._turn(now)[1], now)

    # --- what is left out -------------------------------------------------------------------

    def _take_left_out(self) -> None:
        for chunk, why in self._intake.left_out():
            self._leave_out(why, (chunk,))

    def _leave_out(self, why: str, chunks: Sequence[Chunk]) -> None:
        """Let these count as done, and record why."""
        if chunks:
            self._ledger.leave_out(chunks)
            self._telemetry.left_out(self._spec.name, why, chunks, self._clock.now())
