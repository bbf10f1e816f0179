"""Commits what a verdict on one unit changes: positions, outputs, state, retries, dead and parked events.

In: a unit that ran, its outcome and its verdict. Out: a commit in flight; a plain one is not waited for.
"""

from __future__ import annotations

import asyncio

from headrace.delivery.partition.open_partition import OpenPartition
from headrace.delivery.partition.settle import Verdict, at_most_once
from headrace.delivery.unit import FOREVER, Unit
from headrace.environment.failpoints import hit
from headrace.model.outcome import Outcome
from headrace.model.policy import OnFailure


async def commit_verdict(
    opened: OpenPartition,
    unit: Unit,
    outcome: Outcome,
    verdict: Verdict,
    on_failure: OnFailure,
    token: int,
) -> None:
    """Make the verdict durable; do not wait for the disk where it only moves positions, outputs and state.

    Args:
        opened: The partition.
        unit: What ran.
        outcome: What came back.
        verdict: What is to happen to its events.
        on_failure: Where events that are given up go.
        token: The version of the state that the run wrote.
    """
    ledger, commits, spec = opened.ledger, opened.commits, opened.spec
    if commits.broken:
        # Nothing may land any more: the rewind finds these events unfinished, and they run again.
        return
    if spec.commit == "before":
        verdict = at_most_once(verdict)
    _record_stops(opened, verdict)
    kept = outcome.returned if verdict.kept else None
    finished = verdict.finished
    if verdict.given_up:
        finished += tuple(lost.chunk for lost in verdict.given_up)
    in_lanes = opened.claimed.in_lanes
    if kept is not None and ledger.is_light(unit, verdict, kept):
        ledger.gather(unit, kept)
        commits.begin_gathered(finished if in_lanes else ())
        await commits.wait_for_capacity()
        return
    commits.flush_gathered()
    plain = ledger.is_plain(unit, verdict)
    now = opened.engine.clock.now()
    effects = ledger.landed(unit, verdict, kept=kept, token=token, on_failure=on_failure, now=now)
    if effects is None:
        opened.intake.release(finished)
        return
    if verdict.given_up:
        hit("dead-letter:before-commit")
    # In order within the partition, the units behind it have read what it wrote, so they have to run again too.
    spare = unit if in_lanes and plain and not effects.trouble else None
    commit = commits.begin(effects, finished, spare)
    if not plain:
        # What was given up is reported only once it is stored.
        await asyncio.wait((commit,))
        if not commits.broken:
            opened.engine.telemetry.gave_up(spec.name, dead=effects.dead, parked=effects.parked)
    else:
        # One turn of the loop: the change is handed to the store before the next run begins,
        # which may read the state that this one wrote.
        await opened.engine.clock.sleep(0)
        await commits.wait_for_capacity()


def _record_stops(opened: OpenPartition, verdict: Verdict) -> None:
    """Report units that stop their partition until an operator decides."""
    for unit in verdict.again:
        if unit.due == FOREVER and unit.cause is not None:
            opened.engine.telemetry.stopped(
                opened.spec.name, unit.chunks[0], unit.cause, unit.attempts
            )
