"""Intake of a partition worker, between its readers and its next unit: batches, lanes or a merge.

In: events that were read. Out: the events of the next unit. Every intake has three methods: `wanting` (which readers to
read), `wait` (when a batch closes) and `take`. Optional abilities have a default here that does nothing, so that the
worker does not depend on the kind of intake. Pure: the caller passes the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from headrace.model.record import Chunk

Left: TypeAlias = tuple[Chunk, str]
"""An event that is left out (a chunk of one), and the policy that left it out."""


class Intake(Protocol):
    """The events of one partition that were read and are not taken yet. Owned by its worker."""

    def wanting(self) -> tuple[int, ...]:
        """Return the indices of the readers to read from."""
        ...

    def add(self, reader: int, chunks: Sequence[Chunk], started: float) -> None:
        """Add chunks of a reader; their batch window `started` then (monotonic seconds)."""
        ...

    def wait(self, now: float) -> float | None:
        """Return the seconds until a batch closes: 0 for now, None if there is nothing to close."""
        ...

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """Return the next batch, or up to so many whole ones if the intake supports it; empty if none is due."""
        ...

    @property
    def is_ready(self) -> bool:
        """Return whether a whole batch can be taken now, independent of time."""
        return False

    @property
    def runs_dry(self) -> bool:
        """Return whether it is not ready only because more must be read."""
        return False

    def look(self, now: int) -> None:
        """Release events that were held until `now`, in microseconds since the epoch."""
        return

    def left_out(self) -> Sequence[Left]:
        """Return what flow control has left out since the last call; it counts as done."""
        return ()

    def unblock(self, key: str | None) -> None:
        """Release an event that waited for a run of this key to end."""
        return

    def release(self, chunks: Iterable[Chunk]) -> bool:
        """Release finished events; return whether more can now be taken or read."""
        return False
