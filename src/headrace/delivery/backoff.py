"""Pauses between beginnings of what keeps failing: longer each time, short again once it ran well."""

from __future__ import annotations

from typing import Final

from headrace.world.clock import Clock
from headrace.world.entropy import Entropy

PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 30.0


class Backoff:
    """Owned by the task that begins something anew, again and again."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock, self._entropy = clock, entropy
        self._pause = PAUSE_MIN_S
        self._began = clock.monotonic()

    def begin(self) -> None:
        """It begins now."""
        self._began = self._clock.monotonic()

    async def wait(self) -> None:
        """It has failed: wait until it may begin again."""
        if self._clock.monotonic() - self._began > PAUSE_MAX_S:
            self._pause = PAUSE_MIN_S
        await self._clock.sleep(self._entropy.uniform(self._pause / 2, self._pause))
        self._pause = min(self._pause * 2, PAUSE_MAX_S)
