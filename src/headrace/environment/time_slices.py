"""Long work on the loop in slices: whoever goes over many rows lets others come in between."""

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

    Others have a turn after its first step already: whoever makes it may have done other long work before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic()

    async def step(self) -> None:
        """Called between two steps; where the slice is over, everybody else has a turn first."""
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
