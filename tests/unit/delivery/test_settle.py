"""Verdicts: every event of a unit gets exactly one, whatever came back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import TROUBLE, offsets_of, unit

from headrace.delivery.partition.settle import Verdict, settle
from headrace.delivery.unit import FOREVER, Unit
from headrace.model.function import FunctionSpec
from headrace.model.outcome import BEHIND, Cause, Crashed, Failure, Outcome, Returned, TimedOut
from headrace.model.policy import DeadLetter, Discard, ParkKey, ParkPartition, Retry

NOW = 1_000_000_000


def spec(**more: object) -> FunctionSpec:
    return FunctionSpec(name="a.f", app="a", **more)  # type: ignore[arg-type] # by name


def judged(running: Unit, outcome: Outcome, asked: FunctionSpec) -> Verdict:
    return settle(running, outcome, asked, now=NOW, draw=lambda low, high: high)


specs = st.builds(
    spec,
    retry=st.builds(Retry, attempts=st.integers(1, 4)),
    bisect=st.booleans(),
    on_failure=st.sampled_from([DeadLetter(), ParkKey(), ParkPartition(), Discard()]),
)
causes = st.sampled_from([TROUBLE, Cause("Permanent", "", retryable=False), Cause(BEHIND, "")])
indices = st.integers(0, 19)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Crashed(TROUBLE)),
    st.just(Crashed(TROUBLE, blameless=True)),
    st.just(TimedOut(TROUBLE)),
    st.builds(
        Returned, error=st.just(TROUBLE), done=st.sets(indices).map(lambda d: tuple(sorted(d)))
    ),
    st.builds(
        Returned,
        failures=st.dictionaries(indices, causes).map(
            lambda found: tuple(Failure(index, found[index]) for index in sorted(found))
        ),
        untouched=st.integers(-1, 22),
    ),
)


@given(st.integers(1, 20), st.integers(0, 3), outcomes, specs)
def test_every_event_gets_exactly_one_verdict(
    count: int, attempts: int, outcome: Outcome, asked: FunctionSpec
) -> None:
    verdict = judged(unit(count, 100, attempts=attempts), outcome, asked)

    told = offsets_of(verdict.finished)
    told += [given_up.chunk.start for given_up in verdict.given_up]
    told += [place for more in verdict.again for place in offsets_of(more.chunks)]
    assert sorted(told) == list(range(100, 100 + count))
    assert all(more.size for more in verdict.again)
    assert not verdict.finished or verdict.kept


@given(st.integers(1, 20), outcomes, specs)
def test_nobody_is_given_up_before_its_attempts_are_spent(
    count: int, outcome: Outcome, asked: FunctionSpec
) -> None:
    verdict = judged(unit(count), outcome, asked)

    for given_up in verdict.given_up:
        assert given_up.attempts >= asked.retry.attempts or not given_up.cause.retryable
        assert given_up.cause.kind != BEHIND
    if isinstance(asked.on_failure, ParkPartition):
        assert not verdict.given_up


def test_a_whole_success_is_kept() -> None:
    verdict = judged(unit(5), Returned(), spec())

    assert verdict == Verdict(finished=unit(5).chunks, kept=True)


def test_an_event_that_failed_alone_waits_and_its_followers_behind_it() -> None:
    outcome = Returned(failures=(Failure(1, TROUBLE),), untouched=2)
    verdict = judged(unit(4), outcome, spec(retry=Retry(initial_delay=2.0, jitter=False)))

    first, rest = verdict.again
    assert (offsets_of(first.chunks), first.attempts, first.due) == ([1], 1, NOW + 2_000_000)
    assert (offsets_of(rest.chunks), rest.attempts, rest.due) == ([2, 3], 0, 0)


def test_an_event_that_only_waited_behind_another_spends_no_attempt() -> None:
    outcome = Returned(failures=(Failure(0, TROUBLE), Failure(1, Cause(BEHIND, ""))))
    verdict = judged(unit(2), outcome, spec(retry=Retry(attempts=1)))

    assert [given_up.chunk.start for given_up in verdict.given_up] == [0]
    assert [(offsets_of(more.chunks), more.attempts) for more in verdict.again] == [([1], 0)]


def test_what_the_platform_took_away_costs_nothing() -> None:
    verdict = judged(unit(3, attempts=2), Crashed(TROUBLE, blameless=True), spec())

    assert [(more.size, more.attempts, more.due) for more in verdict.again] == [(3, 2, 0)]
    assert verdict.healthy is None


def test_a_run_that_came_nowhere_is_a_failure() -> None:
    verdict = judged(unit(1), Returned(untouched=0), spec(retry=Retry(attempts=1)))

    assert verdict.given_up[0].cause.kind == "NoProgress"


def test_a_stopped_partition_waits_for_an_operator() -> None:
    asked = spec(retry=Retry(attempts=1), on_failure=ParkPartition())
    verdict = judged(unit(1), Returned(error=TROUBLE), asked)

    assert [more.due for more in verdict.again] == [FOREVER]


def test_coalesced_batches_that_end_early_without_a_failure_are_done_up_to_there() -> None:
    asked = spec(batch_size=2)
    verdict = judged(unit(6), Returned(untouched=3), asked)

    assert offsets_of(verdict.finished) == [0, 1, 2]
    assert [offsets_of(each.chunks) for each in verdict.again] == [[3], [4, 5]]
    assert all(each.attempts == 0 for each in verdict.again)
    assert (verdict.kept, verdict.given_up) == (True, ())


def test_an_event_that_failed_is_never_done_whatever_ran_behind_it() -> None:
    said = Returned(failures=(Failure(0, TROUBLE), Failure(3, TROUBLE)), untouched=4)
    verdict = judged(unit(6), said, spec(batch_size=2))

    assert verdict.finished == ()
    assert [offsets_of(each.chunks) for each in verdict.again] == [[0, 1], [2, 3], [4, 5]]
