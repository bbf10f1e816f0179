"""Not now: a function that keeps failing is left alone for a while, then tried once.

Pure but for its own counters; time is handed in. One per function, shared by its partition workers.

    closed --failures in a row--> open --pause over--> half open --success--> closed
                                    ^------------------failure-------'
While it is open positions wait; nothing is lost.
"""

from __future__ import annotations

import enum

from headrace.model.policy import Breaker


class BreakerState(enum.Enum):
    """Whether runs are let through."""

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
        """Begin again, closed: the function has other code, which has not failed yet."""
        self._policy = policy
        self.succeeded()

    @property
    def is_closed(self) -> bool:
        """Whether it lets everything through."""
        return self.state is BreakerState.CLOSED

    def remaining(self, now: float) -> float:
        """Seconds until a run may be let through; 0 where one may be now (monotonic `now`)."""
        if self.state is BreakerState.OPEN or self._trial:
            longest = self._policy.pause if self._policy else 0.0
            return min(max(self._until - now, 0.0), longest)
        return 0.0

    def wait(self, now: float) -> float:
        """Let a run through and return 0, or tell the seconds to wait before asking again.

        Ask only with a run at hand: while it is not closed, a run let through is the one trial.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if (left := self.remaining(now)) > 0:
            return left
        self.state = BreakerState.HALF_OPEN
        self._trial = True
        # Should the trial never report (its node left), another is let through after a pause.
        self._until = now + (self._policy.pause if self._policy else 0.0)
        return 0.0

    def succeeded(self) -> None:
        """A run came back healthy."""
        self._failures = 0
        self._trial = False
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """A run failed as a whole."""
        if self._policy is None:
            return
        self._failures += 1
        self._trial = False
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._policy.failures:
            self.state = BreakerState.OPEN
            self._until = now + self._policy.pause
