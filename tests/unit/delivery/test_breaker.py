"""The circuit breaker: it opens, waits, lets one through, and never loses its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Event, Retry
from headrace.delivery.flow.breaker import BreakerState, CircuitBreaker
from headrace.model.policy import Breaker
from headrace.testing import World

POLICY = Breaker(failures=3, pause=10.0)


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.wait(0.0) == 0.0

    for _ in range(3):
        breaker.failed(100.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.wait(104.0) == 6.0


def test_after_the_pause_one_is_let_through_and_decides() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)

    assert breaker.wait(10.0) == 0.0
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.wait(10.0) > 0, "only one trial at a time"
    breaker.failed(11.0)
    assert breaker.wait(11.0) == 10.0
    assert breaker.wait(21.0) == 0.0
    breaker.succeeded()
    assert [breaker.wait(21.0) for _ in range(3)] == [0.0] * 3


def test_a_trial_that_never_reports_does_not_close_the_door_for_ever() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)
    assert breaker.wait(10.0) == 0.0

    assert breaker.wait(20.0) == 0.0


def test_without_a_policy_it_never_opens() -> None:
    breaker = CircuitBreaker(None)
    for _ in range(1_000):
        breaker.failed(0.0)

    assert breaker.wait(0.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from("sfw"), st.floats(0, 30)), max_size=60))
def test_nobody_waits_longer_than_the_pause_whatever_happens(
    steps: list[tuple[str, float]],
) -> None:
    breaker, now = CircuitBreaker(POLICY), 0.0
    for what, later in steps:
        now += later
        if what == "s":
            breaker.succeeded()
        elif what == "f":
            breaker.failed(now)
        else:
            assert 0.0 <= breaker.wait(now) <= POLICY.pause


def test_the_trial_goes_to_an_event_not_to_a_partition_that_has_none() -> None:
    app = App("app")
    source = app.stream("in", partitions=3)
    ran: list[float] = []

    @app.function(source, retry=Retry(attempts=1), breaker=Breaker(failures=1, pause=10.0))
    def work(event: Event[int]) -> None:
        ran.append(world._lives.clock.monotonic())
        if len(ran) == 1:
            raise ValueError

    with World(app) as world:
        world.publish(source, 1, key="a")
        world.advance(1)
        world.publish(source, 2, 3, key="a")
        world.advance("2m")

    assert ran == [0.0, 10.0, 10.0]
