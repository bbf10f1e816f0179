"""Circuit breaker: a function that keeps failing is paused, then tried once.

Pure but for its own counters; the caller passes the time. One per function, shared by its partition
workers.

    closed --failures in a row--> open --pause over--> half open --success--> closed
                                    ^------------------failure-------'
While it is open events wait in the log; nothing is lost.
"""

from __future__ import annotations

import enum

from headrace.model.policy import Breaker


class BreakerState(enum.Enum):
    """State of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """The breaker of one function. `None` as policy never opens."""

    def __init__(self, policy: Breaker | None) -> None:
        self._policy = policy
        self._failures = 0
        self._until = 0.0
        self._trial = False
        self.state = BreakerState.CLOSED

    def renew(self, policy: Breaker | None) -> None:
        """Start again, closed: the function has new code, which has not failed yet."""
        self._policy = policy
        self.succeeded()

    @property
    def is_closed(self) -> bool:
        """Return whether every run may start."""
        return self.state is BreakerState.CLOSED

    def remaining(self, now: float) -> float:
        """Return the seconds until a run may start; 0 if one may start now (monotonic `now`)."""
        if self.state is BreakerState.OPEN or self._trial:
            # A new policy may have a shorter pause than the one by which `_until` was set.
            longest = self._policy.pause if self._policy else 0.0
            return min(max(self._until - now, 0.0), longest)
        return 0.0

    def wait(self, now: float) -> float:
        """Let a run start and return 0, or return the seconds to wait before the next call.

        Call it only with a run that will start: while the breaker is not closed, that run is the
        one trial.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if (left := self.remaining(now)) > 0:
            return left
        self.state = BreakerState.HALF_OPEN
        self._trial = True
        # If the trial never reports (its partition was revoked), another one may start after a
        # pause.
        self._until = now + (self._policy.pause if self._policy else 0.0)
        return 0.0

    def succeeded(self) -> None:
        """Take note of a successful run."""
        self._failures = 0
        self._trial = False
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """Take note of a run that failed as a whole."""
        if self._policy is None:
            return
        self._failures += 1
        self._trial = False
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._policy.failures:
            self.state = BreakerState.OPEN
            self._until = now + self._policy.pause
