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
# About what the objects of one chunk need besides its body: many tiny chunks count, too.
CHUNK_OVERHEAD = 400


class TailCache:
    """Chunks for readers that keep up. Owned by the broker."""

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._held: deque[tuple[Partition, Chunk]] = deque()
        self.size = 0

    def landed(self, chunks: Sequence[tuple[Partition, Chunk]]) -> None:
        """Count chunks that were added to partitions; drop the oldest where they are too many."""
        for partition, chunk in chunks:
            self._held.append((partition, chunk))
            self.size += len(chunk.body) + CHUNK_OVERHEAD
        if self.size > self._limit:
            self._shorten(self._limit - self._limit // 8)

    def _shorten(self, limit: int) -> None:
        """Drop by the eighth, so that the cost of shifting a chunk list is shared by many chunks."""
        dropped: Counter[Partition] = Counter()
        # At least one stays, so that a chunk larger than the limit is still served from memory.
        while self.size > limit and len(self._held) > 1:
            partition, chunk = self._held.popleft()
            self.size -= len(chunk.body) + CHUNK_OVERHEAD
            held, index = partition.chunk_list, dropped[partition]
            # Retention or compaction may have dropped it from the partition already: then nothing
            # is left to drop.
            if index < len(held.chunks) and held.chunks[index] is chunk:
                dropped[partition] += 1
        for partition, count in dropped.items():
            partition.chunk_list.drop_first(count)
