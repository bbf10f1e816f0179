"""When again: bounded delays, and the end of patience."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.delivery.partition.retry import bound, delay, gives_up
from headrace.model.outcome import Cause
from headrace.model.policy import Retry

policies = st.builds(
    Retry,
    attempts=st.integers(1, 10_000),
    initial_delay=st.floats(0, 10),
    max_delay=st.floats(10, 1_000),
    jitter=st.booleans(),
)


@given(policies, st.integers(1, 10_000), st.floats(0, 1))
def test_a_delay_lies_between_nothing_and_its_bound(
    policy: Retry, attempts: int, luck: float
) -> None:
    found = delay(policy, attempts, lambda low, high: low + (high - low) * luck)

    assert 0 <= found <= bound(policy, attempts) <= policy.max_delay
    if not policy.jitter:
        assert found == bound(policy, attempts)


@given(policies, st.integers(1, 9_999))
def test_bounds_never_shrink(policy: Retry, attempts: int) -> None:
    assert bound(policy, attempts) <= bound(policy, attempts + 1)


def test_the_bound_doubles_up_to_the_cap() -> None:
    policy = Retry(initial_delay=0.2, max_delay=1.0)

    assert [bound(policy, attempts) for attempts in range(1, 6)] == [0.2, 0.4, 0.8, 1.0, 1.0]


@given(policies, st.integers(1, 10_001))
def test_it_gives_up_when_and_only_when_the_attempts_are_spent(
    policy: Retry, attempts: int
) -> None:
    assert gives_up(policy, attempts, Cause("E", ""), 0.0) == (attempts >= policy.attempts)


def test_it_gives_up_at_once_on_what_the_author_named() -> None:
    policy = Retry(attempts=5, give_up_on=("KeyError",))

    assert gives_up(policy, 1, Cause("KeyError", ""), 0.0)
    assert not gives_up(policy, 1, Cause("OSError", ""), 0.0)
    assert gives_up(policy, 1, Cause("OSError", "", retryable=False), 0.0)


def test_it_tries_again_only_what_the_author_named() -> None:
    policy = Retry(attempts=5, retry_on=("OSError",))

    assert gives_up(policy, 1, Cause("KeyError", ""), 0.0)
    assert not gives_up(policy, 1, Cause("OSError", ""), 0.0)


def test_an_event_that_is_too_old_is_given_up() -> None:
    policy = Retry(attempts=5, max_event_age=60.0)

    assert not gives_up(policy, 1, Cause("E", ""), 60.0)
    assert gives_up(policy, 1, Cause("E", ""), 60.1)
