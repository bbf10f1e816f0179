"""Choice of the idle instance to stop when memory is needed: greedy-dual over cost, memory, frequency.

Each instance has the value `clock + frequency * start_cost / memory`. The lowest value is evicted,
and the clock rises to it, so that an instance that was not used for long loses to one in use. See
Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching", HP
Laboratories, 1998. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class GreedyDual:
    """The rising clock of the policy. Owned by the fleet."""

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
        """Return the candidate with the lowest value, or None if there is none."""
        least = min(candidates, key=lambda candidate: candidate[0], default=None)
        if least is None:
            return None
        # The clock never falls, though a candidate that was valued earlier may be below it.
        self._clock = max(self._clock, least[0])
        return least[1]
