"""Long work on the loop in slices, so that other tasks run between two of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

from headrace.environment.clock import Clock
from headrace.model.work_steps import Steps

T = TypeVar("T")

SLICE_S: Final = 0.002
"""The length of one slice, in seconds; the last step may exceed it."""


class Slices:
    """Slices of one long computation.

    Other tasks run already after its first step: its caller may have worked for long before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic()

    async def step(self) -> None:
        """Pause between two steps if the slice is over, so that other tasks run first."""
        if self._clock.monotonic() > self._due:
            await self._clock.sleep(0)
            self._due = self._clock.monotonic() + SLICE_S

    async def through(self, steps: Steps[T]) -> T:
        """Return the result of the steps."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            await self.step()

    async def over(self, rows: Iterable[T]) -> AsyncIterator[T]:
        """Yield each of the rows; a row and the caller's work on it are one step."""
        for row in rows:
            yield row
            await self.step()
