"""The simulation must find what is broken on purpose: one defect at a time, switched on only here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.auditor.judge import judge

import headrace.delivery.partition.ledger as ledger
from headrace.delivery import positions
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.commit.changes import change_of
from headrace.delivery.flow.debounce_waits import DebounceWaits
from headrace.delivery.intake import lanes
from headrace.delivery.parked import encode_event
from headrace.delivery.partition import commit_pipeline, key_order, worker
from headrace.delivery.partition import settle as settling
from headrace.delivery.partition.commit_pipeline import CommitPipeline
from headrace.delivery.partition.ledger import Ledger
from headrace.delivery.partition.retry import gives_up
from headrace.delivery.partition.scheduler import UnitScheduler
from headrace.delivery.partition.verdict_commit import commit_verdict
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.partition.worker_factory import WorkerFactory
from headrace.delivery.publisher import Publisher
from headrace.model.effects import Change, Progress, Space
from headrace.model.errors import Conflict, Fenced
from headrace.model.record import encode_events
from headrace.simulation.campaign import play
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log import memory
from headrace.storage.log.compaction import compact
from headrace.storage.log.memory import MemoryBroker
from headrace.testing import hosts

SEEDS = 400

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Plant, set[str], int]] = {}


def plant(*invariants: str, first: int = 0) -> Callable[[Plant], Plant]:
    """Register a defect that shows as one of `invariants` from the seed `first` on."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = function, set(invariants), first
        return function

    return register


@plant("I1")
def an_acknowledged_publish_is_not_stored(patch: pytest.MonkeyPatch) -> None:
    real = Publisher.publish

    async def forgetful(self: Any, stream: str, events: Any, **more: Any) -> Any:
        return await real(self, stream, events[:-1] if len(events) > 3 else events, **more)

    patch.setattr(Publisher, "publish", forgetful)


@plant("I1", "I4", "I5")
def a_convoy_that_was_cut_counts_as_done(patch: pytest.MonkeyPatch) -> None:
    def careless(unit: Any, outcome: Any, spec: Any, *, now: int, draw: Any) -> Any:
        return settling.Verdict(finished=unit.chunks, kept=True)

    patch.setattr(settling, "_settle_coalesced", careless)


@plant("I1", "I4")
def a_failed_event_moves_the_position(patch: pytest.MonkeyPatch) -> None:
    real = settling.settle

    def careless(unit: Any, outcome: Any, spec: Any, *, now: int, draw: Any) -> Any:
        verdict = real(unit, outcome, spec, now=now, draw=draw)
        lost = tuple(chunk for unit in verdict.again for chunk in unit.chunks)
        return msgspec.structs.replace(verdict, again=(), finished=verdict.finished + lost)

    begin = functools.partialmethod(WorkerFactory.__init__, settle=careless)
    patch.setattr(WorkerFactory, "__init__", begin)


@plant("I4")
def the_watermark_is_the_highest_offset(patch: pytest.MonkeyPatch) -> None:
    def progress(self: Any) -> Progress:
        return Progress(max(self._sparse, default=self.low - 1) + 1)

    patch.setattr(Watermark, "progress", progress)


@plant("I2")
def what_was_finished_out_of_order_is_delivered_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "admit", lambda self, stream, chunks: chunks)


@plant("I2")
def outputs_land_although_the_commit_does_not(patch: pytest.MonkeyPatch) -> None:
    real = MemoryStorage._land

    def torn(self: Any, change: Change) -> Any:
        try:
            return real(self, change)
        except (Conflict, Fenced):
            if change.appends:
                real(self, Change(appends=change.appends))
            raise

    patch.setattr(MemoryStorage, "_land", torn)


@plant("I2")
def state_is_written_without_looking_at_its_version(patch: pytest.MonkeyPatch) -> None:
    def blind(effects: Any, rows: Any) -> Any:
        return change_of(msgspec.structs.replace(effects, reads=()), rows)

    patch.setattr(commit_pipeline, "change_of", blind)


@plant("I2")
def a_repeated_publish_is_not_recognised(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryBroker, "_seen", lambda self, stream, ids, now: set())


@plant("I2", "I4", "I6")
def a_stale_owner_is_not_fenced(patch: pytest.MonkeyPatch) -> None:
    def unfenced(effects: Any, rows: Any) -> Any:
        change, standing = change_of(effects, rows)
        checks = tuple(check for check in change.checks if check.space is not Space.POSITIONS)
        return msgspec.structs.replace(change, checks=checks), standing

    patch.setattr(commit_pipeline, "change_of", unfenced)


@plant("I6")
def a_claim_lowers_the_epoch(patch: pytest.MonkeyPatch) -> None:
    real = positions.encode_position

    def lower(epoch: int, progress: Progress) -> bytes:
        return real(epoch if epoch < 3 else epoch - 2, progress)

    patch.setattr(positions, "encode_position", lower)


@plant("I1", "I4")
def the_event_behind_a_gap_counts_as_finished(patch: pytest.MonkeyPatch) -> None:
    real = Watermark.skip
    patch.setattr(Watermark, "skip", lambda self, low, high: real(self, low, high + 1))


@plant("I1")
def retention_takes_what_is_not_old_enough(patch: pytest.MonkeyPatch) -> None:
    real = memory._retain
    patch.setattr(
        memory,
        "_retain",
        lambda partition, spec, now, below: real(partition, spec, now + 200_000, below),
    )


@plant("I1", first=100)
def retention_takes_what_waits_for_its_next_attempt(patch: pytest.MonkeyPatch) -> None:
    async def nothing(storage: Any, functions: Any) -> dict[tuple[str, int], int]:
        return {}

    patch.setattr(hosts, "lowest_owed", nothing)


@plant("F5", first=100)
def a_debounced_key_waits_anew_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DebounceWaits, "unsaved", lambda self: ())


@plant("I1")
def compaction_takes_the_last_of_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "compact", lambda chunks, **more: compact(chunks, **more)[1:])


@plant("I5")
def an_empty_key_becomes_no_key(patch: pytest.MonkeyPatch) -> None:
    real = Publisher.publish

    async def careless(self: Any, stream: str, events: Any, **more: Any) -> Any:
        keyless = [msgspec.structs.replace(event, key=event.key or None) for event in events]
        return await real(self, stream, keyless, **more)

    patch.setattr(Publisher, "publish", careless)


@plant("I5")
def an_event_loses_its_type_on_its_way(patch: pytest.MonkeyPatch) -> None:
    real = lanes._chunk

    def careless(events: Any) -> Any:
        found = real(events)
        plain = [msgspec.structs.replace(event, type=None) for event in found.events()]
        return msgspec.structs.replace(found, body=encode_events(plain))

    patch.setattr(lanes, "_chunk", careless)


@plant("I6", first=960)
def a_new_owner_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    async def trusting(self: Any) -> dict[Any, Any]:
        standing = {}
        for stream, partition in self._rows:
            row, known = await positions.stored(
                self._committer.storage, self._function, stream, partition
            )
            self._rows[stream, partition] = row
            standing[stream, partition] = known
        return standing

    patch.setattr(CommitPipeline, "found", trusting)


@plant("I7", first=480)
def attempts_of_what_is_not_read_yet_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = Ledger._still_open
    patch.setattr(
        Ledger, "_still_open", lambda self, at, read=(): real(self, at, read) if read else ()
    )


@plant("I7", first=480)
def attempts_of_what_lanes_passed_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = Ledger._still_open

    def careless(self: Any, at: Any, read: Any = ()) -> Any:
        found = real(self, at, read)
        return tuple(each for each in found if not read or each.low > max(read))

    patch.setattr(Ledger, "_still_open", careless)


@plant("I7")
def an_attempt_is_not_counted_while_the_store_holds_none(patch: pytest.MonkeyPatch) -> None:
    real = settling._try_again

    def forgetful(unit: Any, cause: Any, spec: Any, *, now: int, draw: Any) -> Any:
        again, lost = real(unit, cause, spec, now=now, draw=draw)
        if unit.attempts == 1 and unit.due % 3:
            again = tuple(msgspec.structs.replace(each, attempts=1) for each in again)
        return again, lost

    patch.setattr(settling, "_try_again", forgetful)


@plant("I3")
def a_third_attempt_lets_followers_pass(patch: pytest.MonkeyPatch) -> None:
    real = key_order.keys_of

    def careless(unit: Any, *, together: bool = False) -> Any:
        return set() if unit.attempts >= 2 else real(unit, together=together)

    patch.setattr(key_order, "keys_of", careless)


@plant("I3")
def a_retry_lets_followers_pass(patch: pytest.MonkeyPatch) -> None:
    def any_that_is_due(self: Any, now: int) -> Any:
        for place, unit in enumerate(self._ledger.pending):
            if unit.due <= now:
                return place, now
        return None, min(unit.due for unit in self._ledger.pending)

    patch.setattr(UnitScheduler, "_turn", any_that_is_due)


@plant("I3")
def a_key_goes_on_before_its_commit_has_landed(patch: pytest.MonkeyPatch) -> None:
    real = CommitPipeline.begin

    def hasty(self: Any, effects: Any, finished: Any = (), unit: Any = None) -> Any:
        task = real(self, effects, finished, unit)
        if self._intake.release(finished):
            self._wakeup.wake()
        return task

    patch.setattr(CommitPipeline, "begin", hasty)


@plant("I3", first=500)
def a_piece_goes_on_before_the_commit_of_the_last_has_landed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CommitPipeline, "unfinished", lambda self: iter(()))


@plant("R1")
def a_host_that_is_stopped_waits_for_its_runs(patch: pytest.MonkeyPatch) -> None:
    real = PartitionSupervisor.close
    patch.setattr(PartitionSupervisor, "close", lambda self, grace: real(self, 100.0))


@plant("R2", first=480)
def what_ends_while_its_host_is_stopped_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    real = commit_verdict

    async def careless(opened: Any, *verdict: Any) -> None:
        if not opened.is_stopping:
            await real(opened, *verdict)

    patch.setattr(worker, "commit_verdict", careless)


@plant("I3")
def a_parked_key_does_not_hold_its_followers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "divert", lambda self, unit, now: (unit, ()))


@plant("I5")
def a_dead_letter_loses_its_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        ledger, "encode_event", lambda event: encode_event(msgspec.structs.replace(event, key=None))
    )


@plant("I5")
def an_event_is_given_up_one_attempt_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        settling,
        "gives_up",
        lambda policy, attempts, cause, age: gives_up(policy, attempts + 1, cause, age),
    )


@plant("I1")
def a_dead_letter_is_not_written(patch: pytest.MonkeyPatch) -> None:
    def careless(effects: Any, rows: Any) -> Any:
        return change_of(msgspec.structs.replace(effects, dead=()), rows)

    patch.setattr(commit_pipeline, "change_of", careless)


@pytest.mark.parametrize("name", PLANTS)
def test_the_simulation_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, invariants, first = PLANTS[name]
    planted(monkeypatch)

    for seed in range(first, first + SEEDS):
        findings, _ = play(seed, judge)
        if any(finding[:2] in invariants for finding in findings):
            return
    pytest.fail(f"{SEEDS} seeds did not find `{name}`")


def test_every_invariant_has_a_defect_that_shows_it() -> None:
    assert {each for _, invariants, _ in PLANTS.values() for each in invariants} == {
        "I1",
        "I2",
        "I3",
        "I4",
        "I5",
        "I6",
        "I7",
        "F5",
        "R1",
        "R2",
    }
