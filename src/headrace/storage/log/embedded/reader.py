"""Reading the log: from the partition's chunk list where it reaches, else from the table.

Reads run on the loop's thread: a second one would wait for the interpreter's lock at every row
(ADR 0003). One call reads about as much as requested, so it stays short.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from headrace.model.record import Chunk
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.chunk_list import first_events, from_offset, share
from headrace.storage.log.embedded.chunk_rows import decode_row, first_offset, row_id
from headrace.storage.log.embedded.statements import SQL
from headrace.storage.log.log_state import Partition


def read(
    storage: SqliteStorage, partition: Partition, offset: int, *, events: int, size: int
) -> list[Chunk]:
    """Chunks from `offset` on; the first is returned even where it is larger than `size`.

    Raises:
        Corrupt: A row does not match its checksum.
    """
    if partition.chunk_list.covers(offset):
        return partition.chunk_list.read(offset, events=events, size=size)
    found: list[Chunk] = []
    # Closed before anything is awaited: an open cursor keeps its snapshot, and would pin the
    # write-ahead log.
    with closing(rows_from(storage, partition, offset)) as chunks:
        for stored in chunks:
            chunk = from_offset(stored, offset)
            if chunk is None:
                continue
            chunk = first_events(chunk, events)
            found.append(chunk)
            events -= chunk.size
            size -= share(chunk)
            if events <= 0 or size <= 0:
                break
    return found


def rows_from(
    storage: SqliteStorage, partition: Partition, offset: int
) -> Generator[Chunk, None, None]:
    """The stored chunks from the one that holds `offset`; to be closed within the same step."""
    # Up to `high`, not to the end of the table: rows of a commit that is not announced yet are
    # left out.
    span = row_start(storage, partition, offset), row_id(partition.uid, partition.high)
    with closing(storage.rows(SQL["chunks"], span)) as rows:
        for row in rows:
            yield decode_row(partition, row)


def row_start(storage: SqliteStorage, partition: Partition, offset: int) -> int:
    """The id of the last row that begins at or before `offset`, else of the offset itself."""
    low, wanted = row_id(partition.uid, 0), row_id(partition.uid, offset)
    rows = storage.query(SQL["row_holding"], (low, wanted))
    # A row holds many events, so its id mostly is below that of the offset; NULL where there is
    # none.
    held = rows[0][0]
    return held if isinstance(held, int) else wanted


def offset_at(storage: SqliteStorage, partition: Partition, time: int) -> int:
    """The first offset appended at or after `time`; the end where there is none.

    `appended` never goes back within a partition, so halving finds it.
    """
    low, high = partition.low, partition.high
    while low < high:
        middle = (low + high) // 2
        rows = storage.query(
            SQL["append_time"],
            (row_start(storage, partition, middle),),
        )
        # No index on the time: one more for every row would cost each append, for a lookup that
        # is seldom made.
        if not rows or int(rows[0][1] or 0) < time:
            low = _after(storage, partition, rows[0][0] if rows else None, middle)
        else:
            high = min(middle, first_offset(int(rows[0][0] or 0)))
    return max(low, partition.low)


def _after(storage: SqliteStorage, partition: Partition, row: object, middle: int) -> int:
    """First offset of the row after this one; the end where it is the last."""
    start = row + 1 if isinstance(row, int) else row_id(partition.uid, middle)
    found = storage.query(
        SQL["next_row"],
        (start, row_id(partition.uid, partition.high)),
    )
    return first_offset(int(found[0][0] or 0)) if found else partition.high
