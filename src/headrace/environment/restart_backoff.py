"""Pauses between restarts of work that fails: longer each time, short again after a long run."""

from __future__ import annotations

from typing import Final

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy

PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 30.0


class Backoff:
    """Owned by the task that restarts the work.

    Args:
        clock: The clock; the owner may use it as well.
        entropy: Draws every pause from its upper half, so that nodes do not retry at the same moment; None for work that
            concerns only this node.
        least: Seconds of the first pause.
        most: Seconds of the longest; work that ran longer than this starts with the first pause again.
    """

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy | None = None,
        *,
        least: float = PAUSE_MIN_S,
        most: float = PAUSE_MAX_S,
    ) -> None:
        self.clock = clock
        self._entropy = entropy
        self._least = least
        self._most = most
        self._pause = least
        self._began = clock.monotonic()

    def begin(self) -> None:
        """Note the start of the work."""
        self._began = self.clock.monotonic()

    async def wait(self) -> None:
        """Wait after a failure, until the work may start again."""
        # By run time, not by success: the work itself may never return, so running long is all
        # that can be seen.
        if self.clock.monotonic() - self._began > self._most:
            self._pause = self._least
        pause = self._pause
        if self._entropy is not None:
            pause = self._entropy.uniform(pause / 2, pause)
        await self.clock.sleep(pause)
        self._pause = min(self._pause * 2, self._most)
