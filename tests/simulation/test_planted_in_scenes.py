"""What flow control, patterns, queues, buses, calendars and consumers promise, broken on purpose.

One defect at a time, switched on only here; the simulation must find it among the smoke seeds.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.auditor.judge import judge

import headrace.delivery.partition.ledger as ledger
from headrace.admin.queues import Queues
from headrace.bus.http_target import HttpPoster
from headrace.bus.router import RuleRouter
from headrace.delivery.assignment.consumer_run import ConsumerRun
from headrace.delivery.calls import direct
from headrace.delivery.calls.direct import DirectCalls
from headrace.delivery.calls.idempotency import KeyReused
from headrace.delivery.calls.idempotency import RequestRecorder as KeptRequests
from headrace.delivery.commit import delayed_appends
from headrace.delivery.commit.changes import change_of
from headrace.delivery.flow import limits as flow
from headrace.delivery.flow.limits import FlowLimiter, SampleFilter
from headrace.delivery.intake.lanes import Lanes
from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.partition import flow_gate, worker
from headrace.delivery.partition import settle as settling
from headrace.delivery.partition.idle_windows import IdleWindows
from headrace.delivery.partition.retry import gives_up
from headrace.delivery.partition.scheduler import UnitScheduler
from headrace.delivery.partition.verdict_commit import commit_verdict
from headrace.delivery.partition.worker_factory import WorkerFactory
from headrace.delivery.queues import external_consumers
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.model.due_time import wait_of
from headrace.model.outcome import Returned
from headrace.model.record import encode_events
from headrace.simulation.campaign import play_plan
from headrace.simulation.plan import plan_of
from headrace.simulation.plan_values import Plan
from headrace.sources.schedules import source as scheduling
from headrace.sources.schedules.source import ScheduleKeeper
from headrace.storage.log.memory import MemoryBroker
from headrace.topology.external_consumers import consumer_of

SEEDS = 400

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Plant, str, str]] = {}

INVARIANTS = {
    "P1",
    "F1",
    "F2",
    "F3",
    "F4",
    "F5",
    "Q1",
    "Q2",
    "Q3",
    "Q4",
    "Q5",
    "Q6",
    "B1",
    "B2",
    "B3",
    "B4",
    "S1",
    "S2",
    "S3",
    "L1",
    "L2",
    "L3",
    "M1",
    "M2",
    "D1",
    "D2",
    "D3",
    "D4",
    "D5",
    "W1",
    "W2",
    "W3",
    "W4",
}


def plant(invariant: str, where: str) -> Callable[[Plant], Plant]:
    """Register a defect that shows as `invariant` in the plans that have `where`."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = function, invariant, where
        return function

    return register


def _changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


# --- patterns and flow control -------------------------------------------------------------------


@plant("P1", "least")
def a_pattern_means_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "_wanted", lambda wants, chunks, mark: chunks)


@plant("F1", "throttle")
def a_throttle_spends_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flow, "spent", lambda pace, full, now: full)


@plant("F2", "concurrency")
def a_concurrency_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FlowLimiter, "until", lambda self, now: now)
    patch.setattr(FlowLimiter, "until_key", lambda self, key, now: now)


@plant("F2", "batch_per_key")
def a_batch_holds_several_keys(patch: pytest.MonkeyPatch) -> None:
    real = flow_gate._rules
    patch.setattr(flow_gate, "_rules", lambda spec, flow: _changed(real(spec, flow), one_key=False))


@plant("F3", "sample")
def a_rate_lets_everything_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SampleFilter, "_spend", lambda self, pace, stream, key, at: True)


@plant("F4", "debounce")
def a_debounce_waits_half_as_long(patch: pytest.MonkeyPatch) -> None:
    real = flow_gate._rules

    def hasty(spec: Any, flow: Any) -> Any:
        rules = real(spec, flow)
        return _changed(rules, quiet=rules.quiet // 2)

    patch.setattr(flow_gate, "_rules", hasty)


@plant("F5", "batch_per_key")
def a_window_begins_anew_with_each_event(patch: pytest.MonkeyPatch) -> None:
    real = Lanes._hold

    def anew(self: Any, lane: Any, waiting: Any) -> None:
        # As if the last event to come had been the first.
        real(self, lane, deque([waiting[-1], *list(waiting)[1:]]))

    patch.setattr(Lanes, "_hold", anew)


@plant("F5", "debounce")
def a_debounce_has_no_longest(patch: pytest.MonkeyPatch) -> None:
    real = flow_gate._rules
    patch.setattr(flow_gate, "_rules", lambda spec, flow: _changed(real(spec, flow), longest=0))


# --- queues --------------------------------------------------------------------------------------


@plant("Q1", "queue")
def an_acknowledgement_is_answered_and_forgotten(patch: pytest.MonkeyPatch) -> None:
    async def careless(self: Any, function: str, receipt: str) -> bool:
        return True

    patch.setattr(ExternalConsumers, "acknowledge", careless)


@plant("Q2", "queue")
def a_message_is_given_out_once_more_than_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        settling,
        "gives_up",
        lambda policy, attempts, cause, age: gives_up(policy, attempts - 1, cause, age),
    )


@plant("Q3", "queue")
def a_new_host_does_not_know_who_holds_what(patch: pytest.MonkeyPatch) -> None:
    real = ExternalConsumers._load

    async def forgetful(self: Any, function: str, offer: Any) -> None:
        await real(self, function, offer)
        offer.lease = None

    patch.setattr(ExternalConsumers, "_load", forgetful)


@plant("Q4", "queue")
def a_group_has_no_order(patch: pytest.MonkeyPatch) -> None:
    def unordered(stream: Any, app: str) -> Any:
        found = consumer_of(stream, app)
        return found and _changed(found, order="none")

    patch.setattr("headrace.delivery.assignment.supervisor.consumer_of", unordered)


@plant("Q5", "queue")
def a_delay_is_cut_short(patch: pytest.MonkeyPatch) -> None:
    real = wait_of
    patch.setattr(delayed_appends, "wait_of", lambda *asked: real(*asked) / 2)


@plant("Q6", "queue")
def a_priority_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(external_consumers, "rank_of", lambda appended, event, header: appended)


@plant("Q1", "queue")
def only_a_page_of_dead_messages_is_redriven(patch: pytest.MonkeyPatch) -> None:
    real = Queues._dead_of

    async def first_page(self: Any, group: str, name: str) -> Any:
        return (await real(self, group, name))[:50]

    patch.setattr(Queues, "_dead_of", first_page)


# --- buses ---------------------------------------------------------------------------------------


@plant("B1", "bus")
def a_router_overlooks_some_events(patch: pytest.MonkeyPatch) -> None:
    real = RuleRouter._route

    def careless(self: Any, event: Any, chunk: Any, offset: int, *more: Any) -> None:
        if offset % 3 != 2:
            real(self, event, chunk, offset, *more)

    patch.setattr(RuleRouter, "_route", careless)


@plant("B2", "bus")
def a_router_turns_its_batches_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("headrace.bus.router.encode_events", lambda events: encode_events(events[::-1]))


@plant("B3", "bus")
def a_replay_begins_at_the_beginning(patch: pytest.MonkeyPatch) -> None:
    real = MemoryBroker.offset_at

    async def early(self: Any, stream: str, partition: int, time: int) -> int:
        offset = await real(self, stream, partition, time)
        return max(offset - 1, 0)

    patch.setattr(MemoryBroker, "offset_at", early)


@plant("B4", "bus")
def a_poster_says_done_and_sends_nothing(patch: pytest.MonkeyPatch) -> None:
    real = HttpPoster.__call__

    async def lazy(self: Any, invocation: Any) -> Any:
        return Returned() if invocation.chunks[0].start % 2 else await real(self, invocation)

    patch.setattr(HttpPoster, "__call__", lazy)


# --- calendars -----------------------------------------------------------------------------------


@plant("S1", "calendar")
def a_schedule_fires_early(patch: pytest.MonkeyPatch) -> None:
    def early(self: Any) -> int | None:
        return None if self._state.next is None else self._state.next - 100_000

    patch.setattr(ScheduleKeeper, "due", property(early))


@plant("S2", "calendar")
def a_schedule_skips_a_time(patch: pytest.MonkeyPatch) -> None:
    real = scheduling.due

    def careless(schedule: Any, times: Any, standing: Any, now: int, stream: str) -> Any:
        events, after = real(schedule, times, standing, now, stream)
        return ([] if standing.next // 1_000_000 % 3 == 0 else events), after

    patch.setattr(scheduling, "due", careless)


@plant("S3", "calendar")
def what_a_schedule_set_off_leaves_nothing(patch: pytest.MonkeyPatch) -> None:
    real = settling.settle

    def careless(unit: Any, outcome: Any, spec: Any, *, now: int, draw: Any) -> Any:
        verdict = real(unit, outcome, spec, now=now, draw=draw)
        return _changed(verdict, kept=False) if spec.name.startswith("sim.s") else verdict

    begin = functools.partialmethod(WorkerFactory.__init__, settle=careless)
    patch.setattr(WorkerFactory, "__init__", begin)


# --- consumers -----------------------------------------------------------------------------------


@plant("L1", "consumer")
def a_consumer_commits_without_its_state(patch: pytest.MonkeyPatch) -> None:
    real = ConsumerRun._effects
    patch.setattr(
        ConsumerRun, "_effects", lambda self, returned: _changed(real(self, returned), writes=())
    )


@plant("L2", "consumer")
def a_consumer_commits_positions_alone(patch: pytest.MonkeyPatch) -> None:
    real = ConsumerRun._effects
    patch.setattr(
        ConsumerRun, "_effects", lambda self, returned: _changed(real(self, returned), appends=())
    )


@plant("L3", "consumer")
def a_consumer_is_given_the_last_first(patch: pytest.MonkeyPatch) -> None:
    real = ConsumerRun.fetch

    async def reversing(self: Any, events: int) -> Any:
        chunks, left = await real(self, events)
        return chunks[::-1], left

    patch.setattr(ConsumerRun, "fetch", reversing)


# --- merges --------------------------------------------------------------------------------------


@plant("M1", "merge")
def a_merge_takes_the_last_of_what_waits(patch: pytest.MonkeyPatch) -> None:
    real = Merge.take
    patch.setattr(Merge, "take", lambda self, *when: real(self, *when)[::-1])


@plant("M2", "merge")
def a_merge_forgets_whom_it_passed(patch: pytest.MonkeyPatch) -> None:
    real = MergeOrderStore.rows

    def forgetful(self: Any, progress: Any) -> Any:
        real(self, progress)
        return ()

    patch.setattr(MergeOrderStore, "rows", forgetful)


# --- desks ---------------------------------------------------------------------------------------


@plant("D1", "desk")
def an_answer_is_given_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: DirectCalls, *_: Any) -> None:
        return None

    patch.setattr(DirectCalls, "_commit", commit)


@plant("D1", "desk")
def an_answer_is_not_remembered(patch: pytest.MonkeyPatch) -> None:
    async def answered(self: DirectCalls, *_: Any) -> None:
        return None

    patch.setattr(DirectCalls, "_answered", answered)


@plant("D2", "desk")
def a_repetition_gets_another_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(direct, "opened", lambda kept, digest: b"0")


@plant("D3", "desk")
def what_is_refused_is_kept(patch: pytest.MonkeyPatch) -> None:
    real = KeptRequests.keep

    async def keep(self: KeptRequests, *args: Any, **more: Any) -> Any:
        await real(self, *args, **more)
        raise KeyReused

    patch.setattr(KeptRequests, "keep", keep)


@plant("D4", "desk")
def a_key_is_another_ones_for_another_request(patch: pytest.MonkeyPatch) -> None:
    real = DirectCalls.call

    async def call(self: DirectCalls, function: str, payload: bytes, **more: Any) -> bytes:
        if more.get("key"):
            more["key"] += payload.decode()
        return await real(self, function, payload, **more)

    patch.setattr(DirectCalls, "call", call)


@plant("D5", "desk")
def a_call_does_not_see_that_state_has_changed(patch: pytest.MonkeyPatch) -> None:
    def unchecked(*args: Any) -> Any:
        change, more = change_of(*args)
        return _changed(change, checks=()), more

    patch.setattr(direct, "change_of", unchecked)


# --- windows -------------------------------------------------------------------------------------


@plant("W1", "windows")
def what_is_told_of_a_window_does_not_land(patch: pytest.MonkeyPatch) -> None:
    real = commit_verdict

    async def careless(opened: Any, unit: Any, outcome: Any, *more: Any) -> None:
        if ".window." in unit.chunks[0].stream and isinstance(outcome, Returned):
            outcome = _changed(outcome, appends=())
        await real(opened, unit, outcome, *more)

    patch.setattr(worker, "commit_verdict", careless)


@plant("W2", "windows")
def a_window_is_given_up_one_attempt_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        settling,
        "gives_up",
        lambda policy, attempts, cause, age: gives_up(policy, attempts + 1, cause, age),
    )


@plant("W3", "windows")
def a_window_that_fails_lets_others_of_its_key_pass(patch: pytest.MonkeyPatch) -> None:
    def any_that_is_due(self: Any, now: int) -> Any:
        for place, unit in enumerate(self._ledger.pending):
            if unit.due <= now:
                return place, now
        return None, min(unit.due for unit in self._ledger.pending)

    patch.setattr(UnitScheduler, "_turn", any_that_is_due)


@plant("W1", "windows")
def windows_that_a_quiet_stream_leaves_open_stay_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IdleWindows, "is_due", lambda self, now: False)


@plant("W4", "windows")
def silence_is_counted_from_the_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IdleWindows, "event_came", lambda self, now: self.look_again())


# --- the tests -----------------------------------------------------------------------------------


def _plans(where: str) -> Iterator[Plan]:
    for plan in map(plan_of, range(SEEDS)):
        kinds = {scene.__struct_config__.tag for scene in plan.scenes}
        if where in kinds or any(getattr(each, where, None) for each in plan.functions):
            yield plan


@pytest.mark.parametrize("name", PLANTS)
def test_the_simulation_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, invariant, where = PLANTS[name]
    planted(monkeypatch)

    for plan in _plans(where):
        if any(finding.startswith(invariant) for finding in play_plan(plan, judge)[0]):
            return
    pytest.fail(f"{SEEDS} seeds did not find `{name}`")


def test_every_invariant_has_a_defect_that_shows_it() -> None:
    assert {invariant for _, invariant, _ in PLANTS.values()} == INVARIANTS
