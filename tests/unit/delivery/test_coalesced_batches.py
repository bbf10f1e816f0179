"""Convoys: batches that travel together are judged, counted and bounded as if each had gone alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import TROUBLE, chunk, offsets_of, unit

from headrace.delivery.intake.batcher import Batcher
from headrace.delivery.partition.coalesced_batches import (
    ALONE_AFTER_A_CUT,
    MOST,
    TOGETHER_S,
    CoalescedBatches,
)
from headrace.delivery.partition.invocation import call_of
from headrace.delivery.partition.settle import Verdict, settle
from headrace.delivery.unit import Unit, cut
from headrace.environment.randomness import SeededEntropy
from headrace.model.function import FunctionSpec
from headrace.model.invocation import BatchInvocation, CoalescedInvocation
from headrace.model.outcome import Cause, Crashed, Failure, Outcome, Returned, StateRead, Usage
from headrace.model.policy import CONVOY_SPARE_S, Resources, Retry, Scaling
from headrace.model.record import Append
from headrace.telemetry.history import RunHistory, runs_of

NOW = 1_000_000_000


def spec(**more: object) -> FunctionSpec:
    return FunctionSpec(name="a.f", app="a", **more)  # type: ignore[arg-type] # by name


def judged(running: Unit, outcome: Outcome, asked: FunctionSpec) -> Verdict:
    return settle(running, outcome, asked, now=NOW, draw=lambda low, high: high)


# --- how many ------------------------------------------------------------------------------------


def test_a_convoy_grows_while_all_of_it_comes_through() -> None:
    convoy = CoalescedBatches(spec(batch_size=1))

    sizes = [convoy.size]
    for _ in range(6):
        convoy.ended(convoy.size, Returned())
        sizes.append(convoy.size)

    assert sizes == [1, 2, 4, 8, MOST, MOST, MOST]


def test_a_convoy_is_no_longer_than_short_runs_allow() -> None:
    convoy = CoalescedBatches(spec(batch_size=1))
    for _ in range(6):
        convoy.ended(1, Returned(usage=Usage(wall=TOGETHER_S / 3)))
    assert convoy.size == 3

    convoy.ended(1, Returned(usage=Usage(wall=TOGETHER_S * 10)))
    assert convoy.size == 1


@pytest.mark.parametrize(
    "outcome",
    [
        Returned(error=TROUBLE),
        Returned(failures=(Failure(1, TROUBLE),)),
        Returned(untouched=2),
        Returned(reads=(StateRead("k", 1),)),
        Crashed(TROUBLE),
    ],
)
def test_batches_go_alone_for_a_while_once_a_convoy_was_cut(outcome: Outcome) -> None:
    convoy = CoalescedBatches(spec(batch_size=1))
    convoy.ended(1, Returned())
    convoy.ended(2, outcome)
    for _ in range(ALONE_AFTER_A_CUT):
        assert convoy.size == 1
        convoy.ended(1, Returned())

    convoy.ended(1, Returned())
    assert convoy.size == 2


@pytest.mark.parametrize(
    "asked",
    [
        spec(commit="before"),
        spec(scaling=Scaling(max_invocations=3)),
        spec(resources=Resources(cpu=1.0)),
    ],
)
def test_what_is_counted_or_granted_by_the_invocation_never_travels_together(
    asked: FunctionSpec,
) -> None:
    convoy = CoalescedBatches(asked)
    convoy.ended(asked.batch_size, Returned())

    assert convoy.size == convoy.most == 1


# --- what goes -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(20, 200),
)
def test_several_batches_are_taken_whole_in_order_and_within_the_bytes_of_one(
    counts: list[int], limit: int, together: int, size: int
) -> None:
    batcher = Batcher(events=limit, size=size, window=0.0)
    first = 0
    for count in counts:
        batcher.add(0, [chunk(count, first)], 0.0)
        first += count

    found = list[int]()
    while batcher.wait(0.0) is not None:
        waiting = len(batcher)
        taken = batcher.take(0.0, together)
        count = sum(one.size for one in taken)
        assert 1 <= count <= max(min(together, waiting // limit), 1) * limit
        assert count == 1 or sum(len(one.body) - 1 for one in taken) <= size
        found += offsets_of(taken)

    assert found == list(range(first))
    assert len(batcher) == 0


def test_what_holds_more_than_a_batch_is_called_as_a_convoy() -> None:
    asked = spec(batch_size=2, timeout=3.0)

    call = call_of(unit(5), asked, SeededEntropy(1), now=NOW, affinity="", fresh=False)
    alone = call_of(unit(2), asked, SeededEntropy(1), now=NOW, affinity="", fresh=False)

    assert isinstance(call, CoalescedInvocation)
    assert (call.each, call.batches, call.timeout) == (2, 3, 3.0 + CONVOY_SPARE_S)
    assert type(alone) is BatchInvocation
    assert (alone.batches, alone.timeout) == (1, 3.0)


# --- what becomes of it --------------------------------------------------------------------------

lasts = st.one_of(
    st.just(Returned()),
    st.just(Returned(error=TROUBLE)),
    st.just(Returned(failures=(Failure(0, TROUBLE),))),
    st.just(Returned(failures=(Failure(0, Cause("Permanent", "", retryable=False)),))),
    st.just(Returned(failures=(Failure(0, TROUBLE),), untouched=1)),
    st.just(Returned(error=TROUBLE, done=(0,))),
)
specs = st.builds(
    spec,
    batch_size=st.integers(2, 4),
    retry=st.builds(Retry, attempts=st.integers(1, 3)),
    bisect=st.booleans(),
)


@given(specs, st.integers(0, 3), st.integers(0, 3), lasts)
def test_the_batch_that_ends_a_convoy_is_judged_as_if_it_had_gone_alone(
    asked: FunctionSpec, before: int, behind: int, last: Returned
) -> None:
    size = asked.batch_size
    whole = unit(size * (before + 1 + behind) or 1)
    low, high = size * before, size * (before + 1)
    untouched = low + last.untouched if last.untouched >= 0 else high
    ended = msgspec.structs.replace(
        last,
        failures=tuple(Failure(low + each.index, each.cause) for each in last.failures),
        untouched=untouched if untouched < whole.size else -1,
        done=(*range(low), *(low + index for index in last.done)) if last.error else (),
    )

    verdict = judged(whole, ended, asked)
    alone = judged(Unit(cut(whole.chunks, low, high)), last, asked)

    assert offsets_of(verdict.finished) == [*range(low), *offsets_of(alone.finished)]
    again = [(one.attempts, one.due, offsets_of(one.chunks)) for one in verdict.again]
    rest = [(0, 0, list(range(high, whole.size)))] if behind else []
    assert again == [
        *((one.attempts, one.due, offsets_of(one.chunks)) for one in alone.again),
        *rest,
    ]
    assert verdict.given_up == alone.given_up
    assert verdict.kept == (alone.kept or before > 0)
    if before + behind:
        assert verdict.healthy == alone.healthy


@pytest.mark.parametrize("outcome", [Crashed(TROUBLE), Returned(error=TROUBLE)])
def test_of_a_convoy_that_is_lost_each_batch_goes_alone_and_has_spent_nothing(
    outcome: Outcome,
) -> None:
    verdict = judged(unit(5), outcome, spec(batch_size=2, bisect=False))

    assert [offsets_of(one.chunks) for one in verdict.again] == [[0, 1], [2, 3], [4]]
    assert [one.attempts for one in verdict.again] == [0, 0, 0]
    assert not verdict.finished
    assert not verdict.kept


def test_an_instance_is_not_believed_that_went_on_behind_a_failure() -> None:
    outcome = Returned(failures=(Failure(1, TROUBLE),))

    verdict = judged(unit(6), outcome, spec(batch_size=1))

    assert not verdict.finished
    assert [offsets_of(one.chunks) for one in verdict.again] == [[n] for n in range(6)]


# --- what is told of it --------------------------------------------------------------------------


def tally(outcome: Outcome) -> tuple[dict[str, int], int, list[tuple[str, int, str]]]:
    call = call_of(unit(5), spec(batch_size=2), SeededEntropy(1), now=0, affinity="", fresh=False)
    runs = RunHistory()
    for run, batches in runs_of(call, outcome, 0.003):
        runs.record(run, batches)
    counters = runs.counters["a.f"]
    assert sum(counters.buckets) == sum(counters.outcomes.values())
    assert counters.seconds == pytest.approx(0.003)
    told = [(run.outcome, run.events, run.first) for run in reversed(runs.recent("a.f"))]
    return dict(counters.outcomes), counters.events, told


def test_every_batch_of_a_convoy_is_counted() -> None:
    assert tally(Returned()) == ({"succeeded": 3}, 5, [("succeeded", 5, "s/0/0")])
    assert tally(Returned(untouched=4)) == ({"succeeded": 2}, 4, [("succeeded", 4, "s/0/0")])


def test_the_batch_that_ended_a_convoy_is_told_by_itself() -> None:
    failed = Returned(error=TROUBLE, done=(0, 1), untouched=4)

    assert tally(failed) == (
        {"succeeded": 1, "failed": 1},
        4,
        [("succeeded", 2, "s/0/0"), ("failed", 2, "s/0/2")],
    )


def test_what_a_convoy_published_lands_with_all_of_it() -> None:
    published = Append("out", 0, 1, b"\x90")

    verdict = judged(unit(4), Returned(appends=(published,)), spec(batch_size=2))

    assert verdict == Verdict(finished=unit(4).chunks, kept=True)
