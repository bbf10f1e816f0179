"""What stands between the readers and the next unit of a partition worker: batches, lanes or a merge.

In: what was read. Out: the events of the next unit. Every intake answers three questions: `wanting` (which
readers to ask), `wait` (when a batch closes) and `take`; whatever only some of them can do has a default
here that does nothing, so that their user never asks which of them it has. Pure: time is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from headrace.model.record import Chunk

Left: TypeAlias = tuple[Chunk, str]
"""An event that is left out (a chunk of one), and because of which policy."""


class Intake(Protocol):
    """The events of one partition that were read and are not taken yet. Owned by its worker."""

    def wanting(self) -> tuple[int, ...]:
        """Which readers to ask for more, by their places."""
        ...

    def add(self, reader: int, chunks: Sequence[Chunk], begun: float) -> None:
        """Take what a reader read; a window of it has begun then (monotonic seconds)."""
        ...

    def wait(self, now: float) -> float | None:
        """Seconds until a batch closes: 0 for at once, None where there is nothing to close."""
        ...

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """The next batch, or up to so many whole ones where the intake can; empty where none is due."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether a whole batch lies there that may go at once, whatever the time is."""
        return False

    @property
    def runs_dry(self) -> bool:
        """Whether it is not ready only because more is to be read."""
        return False

    def look(self, now: int) -> None:
        """It is `now`, in microseconds since the epoch: what was held until now may go."""
        return

    def left_out(self) -> Sequence[Left]:
        """What flow control has left out since the last time; it counts as done."""
        return ()

    def unblock(self, key: str | None) -> None:
        """A run that held this key has ended: what waited for room may go."""
        return

    def release(self, chunks: Iterable[Chunk]) -> bool:
        """These events need no more runs; whether there is now more to take, or room to read more."""
        return False
