"""The newest chunks of all partitions in memory, bounded in bytes over all of them.

Each partition's chunk list is in order, and so is the tail as a whole, so the oldest chunk of the tail
is the first on its chunk list, unless housekeeping has taken it away already.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from headrace.model.record import Chunk
from headrace.storage.log.log_state import Partition

TAIL_BYTES = 16 << 20
CHUNK_OVERHEAD = 400


class TailCache:
    """What is kept for readers that keep up. Owned by the broker."""

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._held: deque[tuple[Partition, Chunk]] = deque()
        self.size = 0

    def landed(self, chunks: Sequence[tuple[Partition, Chunk]]) -> None:
        """These stand on their shelves now; older ones leave where they are too many."""
        for partition, chunk in chunks:
            self._held.append((partition, chunk))
            self.size += len(chunk.body) + CHUNK_OVERHEAD
        if self.size > self._limit:
            self._shorten(self._limit - self._limit // 8)

    def _shorten(self, limit: int) -> None:
        """Drop by the eighth, so that the cost of shifting a chunk list is shared by many chunks."""
        dropped: Counter[Partition] = Counter()
        while self.size > limit and len(self._held) > 1:
            partition, chunk = self._held.popleft()
            self.size -= len(chunk.body) + CHUNK_OVERHEAD
            shelf, index = partition.shelf, dropped[partition]
            if index < len(shelf.chunks) and shelf.chunks[index] is chunk:
                dropped[partition] += 1
        for partition, count in dropped.items():
            partition.shelf.drop_first(count)
