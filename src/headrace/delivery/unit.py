"""Unit of work: events to run together, and the attempts that they have spent.

Pure values, and functions that cut them. A unit keeps its events' order and positions; a cut does
not copy or encode events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from headrace.model.effects import DeadEvent
from headrace.model.outcome import Cause
from headrace.model.record import Chunk

FOREVER = 1 << 62


class Unit(msgspec.Struct, frozen=True, gc=False):
    """Events to run together.

    Attributes:
        chunks: The events, in order.
        attempts: Attempts already spent on exactly these events.
        due: The earliest time of the next run, in microseconds since the epoch; `FOREVER` until an
            operator decides.
        cause: Why the last attempt failed.
        parked: The parked rows these events come from, in order; empty for events from the log.
    """

    chunks: tuple[Chunk, ...]
    attempts: int = 0
    due: int = 0
    cause: Cause | None = None
    parked: tuple[DeadEvent, ...] = ()

    @property
    def size(self) -> int:
        """Return the number of events."""
        if len(self.chunks) == 1:
            # Read several times per run; one chunk is the usual case.
            chunk = self.chunks[0]
            return chunk.high - chunk.low
        return sum(chunk.size for chunk in self.chunks)


def cut(chunks: Sequence[Chunk], low: int, high: int) -> tuple[Chunk, ...]:
    """Return the events at indices `[low, high)` of the sequence, as windows on the same blobs."""
    found: list[Chunk] = []
    base = 0
    for chunk in chunks:
        start, end = max(low - base, 0), min(high - base, chunk.size)
        if start < end:
            found.append(chunk.window(chunk.low + start, chunk.low + end))
        base += chunk.size
        if base >= high:
            break
    return tuple(found)


def runs(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending indices as half-open runs: 1 2 3 7 8 becomes (1, 4) (7, 9)."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


def pick(chunks: Sequence[Chunk], indices: Iterable[int]) -> tuple[Chunk, ...]:
    """Return the events at ascending `indices`."""
    return tuple(chunk for low, high in runs(indices) for chunk in cut(chunks, low, high))
