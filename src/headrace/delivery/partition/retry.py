"""Retry delays: exponential backoff with full jitter, or giving up.

Pure. Source of the rule: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.model.exception_names import means
from headrace.model.outcome import Cause
from headrace.model.policy import Retry

Draw = Callable[[float, float], float]


def bound(policy: Retry, attempts: int) -> float:
    """Return the longest delay, in seconds, after `attempts` failed attempts (from 1)."""
    # A float overflows beyond 2^1023.
    exponent = min(attempts - 1, 62)
    return float(min(policy.max_delay, policy.initial_delay * 2.0**exponent))


def delay(policy: Retry, attempts: int, draw: Draw) -> float:
    """Return the seconds to wait after `attempts` failed attempts."""
    longest = bound(policy, attempts)
    return draw(0.0, longest) if policy.jitter else longest


def gives_up(policy: Retry, attempts: int, cause: Cause, age: float) -> bool:
    """Return whether an event that failed `attempts` times and is `age` seconds old is given up."""
    if (
        attempts >= policy.attempts
        or not cause.retryable
        or (policy.max_event_age is not None and age > policy.max_event_age)
    ):
        return True
    # An end without an exception (a crash, a timeout) has only its kind.
    members = cause.classes or ((cause.kind,),)
    if any(means(policy.give_up_on, member) for member in members):
        return True
    return bool(policy.retry_on) and not all(means(policy.retry_on, each) for each in members)
