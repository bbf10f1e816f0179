"""Removing what a stream no longer wants to keep: by age, and by bytes per partition.

Works on whole rows, oldest first, in slices that are part of ordinary group commits, so that no
change waits for housekeeping. The partition's end is stored with it: an emptied partition continues at
the same offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from headrace.model.function import StreamSpec
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.chunk_rows import first_offset, row_id
from headrace.storage.log.embedded.reader import offset_at, row_start
from headrace.storage.log.embedded.statements import SQL
from headrace.storage.log.embedded.streams import remember
from headrace.storage.log.log_state import Partition

ROWS_AT_ONCE = 1_000

_Row: TypeAlias = tuple[int | bytes | str | None, ...]


async def retain(
    storage: SqliteStorage, partition: Partition, spec: StreamSpec, *, now: int, below: int
) -> int:
    """Remove what is too old or too much and ends at `below`; says how many rows went."""
    unbounded = spec.retention_age is None and spec.retention_bytes is None
    # Compaction decides by key what a compacted stream keeps; age would remove the last value of a
    # key.
    if unbounded or spec.cleanup == "compact":
        return 0
    removed = 0
    while rows := _surplus(storage, partition, spec, now, below):
        await _remove(storage, partition, rows)
        removed += len(rows)
    return removed


async def trim(storage: SqliteStorage, partition: Partition, *, below: int, before: int) -> int:
    """Remove rows that end below `below` and were appended before `before`; says how many went."""
    removed = 0
    while partition.low < below and (rows := _passed(storage, partition, below, before)):
        await _remove(storage, partition, rows)
        removed += len(rows)
    return removed


async def _remove(storage: SqliteStorage, partition: Partition, rows: Sequence[_Row]) -> None:
    """Remove these, the oldest of the partition."""
    freed = sum(int(row[1] or 0) for row in rows)
    end = int(rows[-1][0] or 0) + 1
    low = _next_row(storage, partition, end)
    partition.size -= freed
    # Before the write: a reader must not be sent to a row that is about to go. If the write fails
    # the rows stay, are hidden, and go with a later sweep.
    partition.low = low
    partition.chunk_list.drop_first(sum(1 for first in partition.chunk_list.firsts if first < low))
    await storage.write(
        # Together with the end: a partition that is emptied and reopened would otherwise begin at
        # 0 again, below what readers have committed.
        [(SQL["delete_chunks"], [(row_id(partition.uid, 0), end)]), remember(partition)]
    )


def _passed(
    storage: SqliteStorage, partition: Partition, below: int, before: int
) -> Sequence[_Row]:
    """The oldest rows that are passed, some of them."""
    limit = row_id(partition.uid, partition.high)
    kept = min(offset_at(storage, partition, before), below)
    end = limit if kept >= partition.high else row_start(storage, partition, kept)
    return storage.query(
        SQL["oldest_sizes"], (row_id(partition.uid, partition.low), end, ROWS_AT_ONCE)
    )


def _surplus(
    storage: SqliteStorage, partition: Partition, spec: StreamSpec, now: int, below: int
) -> list[_Row]:
    """The oldest rows that have to go, some of them."""
    if partition.low >= min(partition.high, below):
        return []
    limit = row_id(partition.uid, partition.high)
    start = row_id(partition.uid, partition.low)
    # The row that holds `below` stays whole, since a part of its events is still owed.
    end = limit if below >= partition.high else row_start(storage, partition, below)
    rows = storage.query(SQL["oldest_sizes"], (start, end, ROWS_AT_ONCE))
    expired = start
    if spec.retention_age is not None:
        kept = offset_at(storage, partition, now - int(spec.retention_age * 1_000_000))
        at_end = kept >= partition.high
        expired = limit if at_end else row_start(storage, partition, kept)
    surplus = 0 if spec.retention_bytes is None else partition.size - spec.retention_bytes
    gone = []
    for row in rows:
        identity, size = int(row[0] or 0), int(row[1] or 0)
        # A row goes only if the rest still has `retention_bytes`: it is a minimum to keep.
        too_much = surplus > 0 and surplus >= size
        if identity >= expired and not too_much:
            break
        surplus -= size
        gone.append(row)
    return gone


def _next_row(storage: SqliteStorage, partition: Partition, start: int) -> int:
    rows = storage.query(SQL["oldest_sizes"], (start, row_id(partition.uid, partition.high), 1))
    return first_offset(int(rows[0][0] or 0)) if rows else partition.high
