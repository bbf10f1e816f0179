"""The steps of a partition worker that are not a run: close windows, redrive a parked key, admit a unit.

In: what the scheduler decided. Out: the unit to run, or None when the step ended with a commit or a wait.
"""

from __future__ import annotations

from headrace.delivery.parked import parked_events, redriven
from headrace.delivery.partition.coalesced_batches import batches_of
from headrace.delivery.partition.ledger import Lane
from headrace.delivery.partition.open_partition import OpenPartition
from headrace.delivery.partition.settle import RUNAWAY, runaway
from headrace.delivery.partition.verdict_commit import commit_verdict
from headrace.delivery.unit import Unit
from headrace.model.hop_limit import runs_away
from headrace.model.policy import ParkKey


async def close_windows(opened: OpenPartition) -> None:
    """Publish a request to close the open windows, once everything before it is committed."""
    # The store says which windows are open, so an event whose commit is in flight would be missed.
    await opened.commits.drain()
    if opened.idle is None or opened.commits.broken:
        return
    if (request := await opened.idle.request()) is not None:
        await opened.commits.commit(lambda: opened.ledger.progressed((request,)))


async def redrive(opened: OpenPartition, lane: Lane) -> Unit | None:
    """Return the first event of a lane that is being redriven; free the lane when none is left."""
    ledger, commits, spec = opened.ledger, opened.commits, opened.spec
    laid = ledger.laid_behind(lane)
    if ledger.lays_aside:
        # Events that were laid behind the key are in memory only; the store is read below.
        await commits.commit(ledger.progressed)
    await commits.drain()
    if commits.broken:
        return None
    waiting = await parked_events(opened.engine.storage, spec.name, *lane, limit=1)
    if waiting:
        unit = redriven(waiting[0])
        if unit.due <= opened.engine.clock.now():
            return unit
        ledger.postpone(unit, unit.due)
        return None
    if ledger.laid_behind(lane) != laid:
        # Another task has read an event of the key meanwhile; its row may not be stored yet.
        return None
    # Freed in memory before the commit: an event laid behind the key from here on would leave a row of a key
    # that is not parked, which nothing reads again.
    del ledger.parked[lane]
    await commits.commit(lambda: ledger.freed(lane))
    return None


async def admit(opened: OpenPartition, picked: Unit) -> Unit | None:
    """Return the part of the unit that is to run now; None where all of it waits."""
    ledger, spec = opened.ledger, opened.spec
    if later := opened.gate.later(picked):
        ledger.postpone(picked, later)
        return None
    unit, aside = ledger.divert(picked, opened.engine.clock.now())
    opened.intake.release(aside)
    for event in (event for chunk in aside for event in chunk.events()):
        # The event was picked but does not run: another one may use the capacity of its key.
        opened.unblock(event.key)
    if unit is None:
        await opened.commits.drain()
        await opened.commits.commit(ledger.progressed)
        return None
    # What an operator redrives runs, however long its lineage: a person has decided about it.
    if unit.parked or not any(runs_away(chunk.hops) for chunk in unit.chunks):
        return unit
    if unit.size > spec.batch_size:
        # Park only the batch that holds the endless chain, not those that were coalesced with it.
        ledger.pending.extendleft(reversed(batches_of(unit, spec.batch_size)))
        return None
    await commit_verdict(opened, unit, RUNAWAY, runaway(unit), ParkKey(), 0)
    return None
