"""Choice of the idle instance to stop when memory is needed: greedy-dual over cost, memory, frequency.

Each instance is worth `clock + frequency * start_cost / memory`; the one worth least goes, and the
clock rises to its worth, so that what has not been used for long loses to what is used now. See
Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching", HP
Laboratories, 1998. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class GreedyDual:
    """The rising clock. Owned by the fleet."""

    def __init__(self) -> None:
        self._clock = 0.0

    def worth(self, *, invocations: int, start_cost: float, memory: int) -> float:
        """Return the value of keeping an instance since its last use.

        Args:
            invocations: How often it was used.
            start_cost: Seconds that starting another would take.
            memory: Bytes of its own.
        """
        return self._clock + max(invocations, 1) * start_cost / max(memory, 1)

    def choose(self, candidates: Iterable[tuple[float, T]]) -> T | None:
        """The candidate worth least, or None where there are none."""
        least = min(candidates, key=lambda candidate: candidate[0], default=None)
        if least is None:
            return None
        self._clock = max(self._clock, least[0])
        return least[1]
