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
        clock: The time; its owner may read it here as well.
        entropy: Draws every pause from its upper half, so that nodes do not come back in step; None
            for what concerns this node alone.
        least: Seconds of the first pause.
        most: Seconds of the longest; what ran longer than this begins with the first one again.
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
        """It begins now."""
        self._began = self.clock.monotonic()

    async def wait(self) -> None:
        """It has failed: wait until it may begin again."""
        if self.clock.monotonic() - self._began > self._most:
            self._pause = self._least
        pause = self._pause
        if self._entropy is not None:
            pause = self._entropy.uniform(pause / 2, pause)
        await self.clock.sleep(pause)
        self._pause = min(self._pause * 2, self._most)
