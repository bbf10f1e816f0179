"""Chunks of one partition in memory, in order, found by offset.

The memory driver keeps a whole partition on its chunk list; the embedded one only the tail, so that a
reader that keeps up never reads from the disk.
"""

from __future__ import annotations

from bisect import bisect_right

from headrace.model.record import Chunk


class ChunkList:
    """Consecutive chunks, ascending. Owned by a partition."""

    __slots__ = ("chunks", "firsts")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        # A separate list for bisect: `key=` would call a function at every step of a read.
        self.firsts: list[int] = []

    def add(self, chunk: Chunk) -> None:
        """Put the next chunk behind the others."""
        self.firsts.append(chunk.first)
        self.chunks.append(chunk)

    def covers(self, offset: int) -> bool:
        """Return True where everything from `offset` to the end is here."""
        return bool(self.firsts) and self.firsts[0] <= offset

    def drop_first(self, count: int) -> None:
        """Take the oldest chunks away."""
        del self.chunks[:count]
        del self.firsts[:count]

    def replace(self, chunks: list[Chunk]) -> None:
        """Keep these instead."""
        self.chunks = chunks
        self.firsts = [chunk.first for chunk in chunks]

    def read(self, offset: int, *, events: int, size: int) -> list[Chunk]:
        """Chunks from `offset` on; the first is returned even where it is larger than `size`."""
        found: list[Chunk] = []
        # The chunk that holds the offset begins at or before it.
        index = max(bisect_right(self.firsts, offset) - 1, 0)
        # `not found`: a first chunk that exceeds `size` is returned all the same, else its reader
        # would never get past it.
        while index < len(self.chunks) and events > 0 and (size > 0 or not found):
            chunk = from_offset(self.chunks[index], offset)
            index += 1
            # Compaction leaves gaps: the chunk that begins before the offset may end before it,
            # too.
            if chunk is None:
                continue
            chunk = first_events(chunk, events)
            found.append(chunk)
            events -= chunk.size
            size -= share(chunk)
        return found


def from_offset(chunk: Chunk, offset: int) -> Chunk | None:
    """The part of the chunk at or after `offset`; None where there is none."""
    low = chunk.low + chunk.below(offset)
    return None if low >= chunk.high else chunk.window(low, chunk.high)


def first_events(chunk: Chunk, events: int) -> Chunk:
    """The first `events` events of the chunk."""
    return chunk if chunk.size <= events else chunk.window(chunk.low, chunk.low + events)


def share(chunk: Chunk) -> int:
    """About how many bytes of its blob the chunk means."""
    return len(chunk.body) * chunk.size // chunk.count if chunk.count else 0
