"""Long work on the loop in slices, so that other tasks run between two of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

from headrace.environment.clock import Clock
from headrace.model.work_steps import Steps

T = TypeVar("T")

SLICE_S: Final = 0.002
"""How long one slice takes, and the step beyond it."""


class Slices:
    """One for each long work.

    Other tasks run after its first step already: its owner may have done other long work before.
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
        """Each of the rows; making one and what is done to it are a step."""
        for row in rows:
            yield row
            await self.step()
