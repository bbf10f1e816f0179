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

ROWS_AT_ONCE = 64
LEAST_GROWTH = 1_000
TOMBSTONE_SECONDS = 86_400.0


class Compactor:
    """Compacts partitions. Owned by the broker's housekeeping."""

    def __init__(self, storage: SqliteStorage, *, tombstones: float = TOMBSTONE_SECONDS) -> None:
        self._storage = storage
        self._tombstones = tombstones
        self._ended: dict[int, int] = {}

    def due(self, partition: Partition) -> bool:
        """Whether enough has come to be worth a walk."""
        ended = self._ended.get(partition.uid, partition.low)
        growth = partition.high - ended
        return growth >= LEAST_GROWTH and growth * 2 >= ended - partition.low

    async def compact(self, partition: Partition, *, now: int, below: int) -> int:
        """Keep the last event of every key; says how many rows were rewritten or removed.

        What stands at `below` or above stays as it is.
        """
        survivors = Survivors(tombstones_until=now - int(self._tombstones * 1_000_000))
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
    """The chunk list shows no chunk that is being rewritten."""
    kept: list[Chunk] = [chunk for chunk in partition.shelf.chunks if chunk.first >= high]
    partition.shelf.replace(kept)
