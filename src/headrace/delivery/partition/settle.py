"""Verdict on each event of a unit: outcome + policy -> verdict. Pure; the core of delivery.

waiting -> in flight -> finished            (its effects are kept, its position moves)
                     -> waiting             (again: after a delay, or immediately when only split)
                     -> given up            (dead letter, parked, discarded: by `on_failure`)
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from headrace.delivery.partition.bisect import halves
from headrace.delivery.partition.coalesced_batches import batches_of
from headrace.delivery.partition.retry import Draw, delay, gives_up
from headrace.delivery.unit import FOREVER, Unit, cut, pick, runs
from headrace.model.function import FunctionSpec
from headrace.model.outcome import BEHIND, Cause, Crashed, Failure, Outcome, Returned, TimedOut
from headrace.model.policy import ParkPartition
from headrace.model.record import Chunk

MICROS = 1_000_000


class GivenUp(msgspec.Struct, frozen=True, gc=False):
    """One event (a chunk of one) whose attempts are spent."""

    chunk: Chunk
    cause: Cause
    attempts: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Result of the judgement of a run.

    Attributes:
        finished: Events that are done.
        given_up: Events that are handled by `on_failure`.
        again: Units to run (again), in order, before anything later.
        kept: Whether the outcome's effects are committed.
        healthy: The report to the circuit breaker; None for no report.
    """

    finished: tuple[Chunk, ...] = ()
    given_up: tuple[GivenUp, ...] = ()
    again: tuple[Unit, ...] = ()
    kept: bool = False
    healthy: bool | None = True


class Settler(Protocol):
    """Judges a unit that has run. Pure; `settle` is the settler of plain functions."""

    def __call__(
        self, unit: Unit, outcome: Outcome, spec: FunctionSpec, *, now: int, draw: Draw
    ) -> Verdict:
        """Judge a run of `unit`; every event of it is in exactly one part of the verdict.

        Args:
            unit: The unit that ran.
            outcome: Its outcome.
            spec: The function.
            now: Microseconds since the epoch.
            draw: Draws the jitter of the pause before a retry.
        """
        ...


def settle(unit: Unit, outcome: Outcome, spec: FunctionSpec, *, now: int, draw: Draw) -> Verdict:
    """Judge a run of `unit` (`now` in microseconds since the epoch; `draw` for the jitter)."""
    match outcome:
        case Returned():
            if unit.size > spec.batch_size:
                return _settle_coalesced(unit, outcome, spec, now=now, draw=draw)
            return _settle_returned(unit, outcome, spec, now=now, draw=draw)
        # The platform ended the instance: no attempt is spent, and the breaker gets no report.
        case Crashed(blameless=True, cause=cause):
            return Verdict(again=(msgspec.structs.replace(unit, cause=cause),), healthy=None)
        case Crashed(cause=cause):
            return _settle_whole(unit, cause, spec, now=now, draw=draw)
        case TimedOut(cause=cause):
            # Halved even without `bisect`: the batch may only have been too long for the timeout.
            return _settle_whole(unit, cause, spec, now=now, draw=draw, halve=True)


def _settle_returned(
    unit: Unit, outcome: Returned, spec: FunctionSpec, *, now: int, draw: Draw
) -> Verdict:
    """Judge a returned outcome: all events succeeded, some failed by name, or the handler raised."""
    if outcome.error is None:
        if not outcome.failures and outcome.untouched < 0:
            return Verdict(finished=unit.chunks, kept=True)
        return _settle_parts(unit, outcome, spec, now=now, draw=draw)
    # Untrusted input: an instance may send any index.
    marked = {index for index in outcome.done if 0 <= index < unit.size}
    if not marked:
        return _settle_whole(unit, outcome.error, spec, now=now, draw=draw)
    rest = pick(unit.chunks, (index for index in range(unit.size) if index not in marked))
    if not rest:
        return Verdict(finished=unit.chunks, kept=True)
    left = _settle_whole(Unit(rest), outcome.error, spec, now=now, draw=draw)
    return Verdict(
        finished=pick(unit.chunks, sorted(marked)),
        given_up=left.given_up,
        again=left.again,
        kept=True,
        healthy=None,
    )


def _settle_coalesced(
    unit: Unit, outcome: Returned, spec: FunctionSpec, *, now: int, draw: Draw
) -> Verdict:
    """Judge coalesced batches: all succeeded, except for the last one that ran.

    That one is judged as if it had run alone; the batches after it run again.
    """
    if outcome.error is None and not outcome.failures and outcome.untouched < 0:
        return Verdict(finished=unit.chunks, kept=True)
    batch, size = spec.batch_size, unit.size
    end = min(outcome.untouched, size) if outcome.untouched >= 0 else size
    # Untrusted input: events that are not listed as done, or follow a failure, are not done.
    if outcome.error is not None:
        marked = set(outcome.done)
        ended = next((index for index in range(end) if index not in marked), end - 1)
    else:
        ended = min((each.index for each in outcome.failures if each.index >= 0), default=end - 1)
    # The batch of the first event that is not done.
    low = max(min(ended, end - 1), 0) // batch * batch
    high = min(low + batch, size)
    if high < end:
        lost = outcome.error or Cause("NoProgress", "it went on behind a batch that had failed")
        return _settle_whole(unit, lost, spec, now=now, draw=draw)
    last = Unit(cut(unit.chunks, low, high))
    alone = Returned(
        failures=tuple(Failure(each.index - low, each.cause) for each in outcome.failures),
        untouched=end - low if end < high else -1,
        error=outcome.error,
        done=tuple(index - low for index in outcome.done if index >= low),
    )
    verdict = _settle_returned(last, alone, spec, now=now, draw=draw)
    behind = (Unit(cut(unit.chunks, high, size)),) if high < size else ()
    return msgspec.structs.replace(
        verdict,
        finished=cut(unit.chunks, 0, low) + verdict.finished,
        again=verdict.again + behind,
        kept=verdict.kept or low > 0,
    )


def _settle_whole(
    unit: Unit, cause: Cause, spec: FunctionSpec, *, now: int, draw: Draw, halve: bool = False
) -> Verdict:
    """Judge a unit that failed as a whole: halve it, retry it, or give it up."""
    if unit.size > spec.batch_size:
        # A group was lost and the batch at fault is unknown: each batch runs alone, without
        # spending an attempt.
        return Verdict(again=batches_of(unit, spec.batch_size, cause), healthy=None)
    # Halving spends no attempt, so a failing event takes none from the others.
    if unit.size > 1 and (spec.bisect or halve):
        return Verdict(again=halves(msgspec.structs.replace(unit, cause=cause)), healthy=False)
    again, given_up = _try_again(unit, cause, spec, now=now, draw=draw)
    return Verdict(again=again, given_up=given_up, healthy=False)


def _settle_parts(
    unit: Unit, outcome: Returned, spec: FunctionSpec, *, now: int, draw: Draw
) -> Verdict:
    """Judge a run in which some events failed by name, and some may not have been run."""
    end = unit.size if outcome.untouched < 0 else min(outcome.untouched, unit.size)
    # Untrusted input, as above: only events that were run can have failed.
    causes = {each.index: each.cause for each in outcome.failures if 0 <= each.index < end}
    if sum(cause.kind == BEHIND for cause in causes.values()) == end:
        stuck = Cause("NoProgress", "the run neither finished nor failed a single event")
        return _settle_whole(unit, stuck, spec, now=now, draw=draw)
    again: list[Unit] = []
    given_up: list[GivenUp] = []
    behind: list[Unit] = []
    for index in sorted(causes):
        if causes[index].kind == BEHIND:
            # The event was not run: it keeps its attempts and waits for the failed event of its
            # key.
            behind.append(
                Unit(cut(unit.chunks, index, index + 1), unit.attempts if unit.size == 1 else 0)
            )
            continue
        one = Unit(
            cut(unit.chunks, index, index + 1), attempts=unit.attempts if unit.size == 1 else 0
        )
        more, lost = _try_again(one, causes[index], spec, now=now, draw=draw)
        again.extend(more)
        given_up.extend(lost)
    again.extend(behind)
    if end < unit.size:
        again.append(Unit(cut(unit.chunks, end, unit.size)))
    good = [index for index in range(end) if index not in causes]
    finished = tuple(chunk for low, high in runs(good) for chunk in cut(unit.chunks, low, high))
    return Verdict(
        finished=finished,
        given_up=tuple(given_up),
        again=tuple(again),
        kept=True,
        healthy=bool(finished),
    )


def _try_again(
    unit: Unit, cause: Cause, spec: FunctionSpec, *, now: int, draw: Draw
) -> tuple[tuple[Unit, ...], tuple[GivenUp, ...]]:
    """Spend one attempt on `unit`: it waits for the next one, or is given up."""
    attempts = unit.attempts + 1
    age = (now - min(chunk.appended for chunk in unit.chunks)) / MICROS
    if not gives_up(spec.retry, attempts, cause, age):
        # A consumer that refuses a message may name the delay itself.
        seconds = cause.delay if cause.delay >= 0 else delay(spec.retry, attempts, draw)
        due = now + int(seconds * MICROS)
        return (Unit(unit.chunks, attempts, due, cause),), ()
    if isinstance(spec.on_failure, ParkPartition):
        # The unit stays in front of the partition until an operator redrives or skips it.
        return (Unit(unit.chunks, attempts, FOREVER, cause),), ()
    lost = tuple(
        GivenUp(chunk.window(index, index + 1), cause, attempts)
        for chunk in unit.chunks
        for index in range(chunk.low, chunk.high)
    )
    return (), lost


RUNAWAY = Crashed(Cause("RunawayLineage", "its lineage is longer than any honest chain"))
"""The outcome of a unit with an endless lineage; it is not run."""


def runaway(unit: Unit) -> Verdict:
    """Return the verdict that parks every event of an endless chain; none is dropped."""
    return Verdict(given_up=_all_given_up(unit, RUNAWAY.cause), healthy=None)


def at_most_once(verdict: Verdict) -> Verdict:
    """Return the verdict with retries given up instead."""
    lost = tuple(
        given_up
        for unit in verdict.again
        for given_up in _all_given_up(unit, unit.cause or Cause("Unfinished", "it was not run"))
    )
    return msgspec.structs.replace(verdict, again=(), given_up=verdict.given_up + lost)


def _all_given_up(unit: Unit, cause: Cause) -> tuple[GivenUp, ...]:
    return tuple(
        GivenUp(chunk.window(index, index + 1), cause, max(unit.attempts, 1))
        for chunk in unit.chunks
        for index in range(chunk.low, chunk.high)
    )
