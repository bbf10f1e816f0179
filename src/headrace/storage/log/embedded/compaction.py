"""Compacting a partition of a state-like stream where it lies.

Walks its rows from the newest to the oldest, a slice at a time, and rewrites those of which less
is left. It remembers one key per survivor while it runs, and begins only when the partition has
grown by half since it last ended.
"""

from __future__ import annotations

from headrace.model.record import Chunk
from headrace.storage.kv.log_appends import Cell
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.compaction import Survivors
from headrace.storage.log.embedded.chunk_rows import decode_row, encode_row, row_id
from headrace.storage.log.embedded.statements import SQL
from headrace.storage.log.embedded.streams import remember
from headrace.storage.log.log_state import Partition

# A slice is decoded on the loop's thread, which serves no request meanwhile.
ROWS_AT_ONCE = 64
LEAST_GROWTH = 1_000
# A day: a reader that was away for less still learns that a key is gone.
TOMBSTONE_SECONDS = 86_400.0


class Compactor:
    """Compacts partitions. Owned by the broker's housekeeping."""

    def __init__(self, storage: SqliteStorage, *, tombstones: float = TOMBSTONE_SECONDS) -> None:
        self._storage = storage
        self._tombstones = tombstones
        # In memory only: after a restart a partition is compacted once too early, which costs a
        # walk.
        self._ended: dict[int, int] = {}

    def due(self, partition: Partition) -> bool:
        """Return True where the partition has grown enough to be worth a walk."""
        ended = self._ended.get(partition.uid, partition.low)
        growth = partition.high - ended
        # By half of what is there: the cost of walks then stays proportional to what was appended.
        return growth >= LEAST_GROWTH and growth * 2 >= ended - partition.low

    async def compact(self, partition: Partition, *, now: int, below: int) -> int:
        """Keep the last event of every key; says how many rows were rewritten or removed.

        What stands at `below` or above stays as it is.
        """
        survivors = Survivors(tombstones_until=now - int(self._tombstones * 1_000_000))
        # Fixed now: what is appended while the walk waits for commits is left for the next.
        high = partition.high
        end = row_id(partition.uid, min(high, below))
        newest = True
        changed = 0
        while rows := self._storage.query(
            SQL["newest_chunks"], (row_id(partition.uid, 0), end, ROWS_AT_ONCE)
        ):
            gone: list[tuple[Cell, ...]] = []
            written: list[tuple[Cell, ...]] = []
            freed = 0
            for row in rows:
                chunk = decode_row(partition, row)
                if newest:
                    survivors.look(chunk)
                    newest = False
                    continue
                left = survivors.judge(chunk)
                if left is not chunk:
                    gone.append((row[0],))
                    freed += len(chunk.body) - (len(left.body) if left else 0)
                    if left is not None:
                        written.append(encode_row(partition, left))
            # The next slice ends below this one. Rows are queried again, not kept in a cursor,
            # which would pin the write-ahead log across the commit.
            end = int(rows[-1][0] or 0)
            if gone:
                changed += len(gone)
                await self._rewrite(partition, high, gone, written, freed)
        self._ended[partition.uid] = high
        return changed

    async def _rewrite(
        self,
        partition: Partition,
        high: int,
        gone: list[tuple[Cell, ...]],
        written: list[tuple[Cell, ...]],
        freed: int,
    ) -> None:
        # Before the write: a reader that comes while it is under way reads the table, whichever
        # form it finds.
        _forget_below(partition, high)
        partition.size -= freed
        await self._storage.write(
            [(SQL["delete_chunk"], gone), (SQL["insert_chunk"], written), remember(partition)]
        )
        first = self._storage.query(
            SQL["lowest_row"],
            (row_id(partition.uid, 0), row_id(partition.uid, partition.high)),
        )[0][0]
        if isinstance(first, int):
            partition.low = first - row_id(partition.uid, 0)


def _forget_below(partition: Partition, high: int) -> None:
    """Drop the chunks that are being rewritten from the chunk list."""
    kept: list[Chunk] = [chunk for chunk in partition.chunk_list.chunks if chunk.first >= high]
    partition.chunk_list.replace(kept)
