"""Rows of streams and partitions: written once, and read when the log is opened.

Recovery makes one indexed query per partition, for its last row. Sizes are kept as of the
last sweep, and only what came after is counted.
"""

from __future__ import annotations

import msgspec

from headrace.model.function import StreamSpec
from headrace.storage.kv.log_appends import Statement
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.chunk_rows import first_offset, row_id
from headrace.storage.log.embedded.statements import SQL
from headrace.storage.log.log_state import LogStream, Partition

_decode = msgspec.json.Decoder(StreamSpec).decode


def load(storage: SqliteStorage) -> dict[str, LogStream]:
    """Every stream, with its partitions where they were."""
    streams: dict[int, LogStream] = {}
    for uid, spec in storage.query(SQL["streams"]):
        if isinstance(uid, int) and isinstance(spec, bytes):
            streams[uid] = LogStream(uid, _decode(spec), [])
    for row in storage.query(SQL["partitions"]):
        uid, owner, number, following, size = (int(cell or 0) for cell in row)
        stream = streams[owner]
        partition = Partition(uid, stream.spec.name, number)
        _recover(storage, partition, following, size)
        stream.partitions.append(partition)
    return {stream.spec.name: stream for stream in streams.values()}


def _recover(storage: SqliteStorage, partition: Partition, following: int, size: int) -> None:
    span = row_id(partition.uid, 0), row_id(partition.uid + 1, 0) - 1
    last = storage.query(SQL["last_row"], span)
    partition.high = following
    if last:
        identity, count, appended, offsets = last[0]
        end = first_offset(int(identity or 0)) + int(count or 0)
        if isinstance(offsets, bytes):
            # A compacted row lists its offsets: its last event may be beyond first + count.
            end = int.from_bytes(offsets[-8:], "big") + 1
        # `next` is only stored by sweeps, and rows come after it; where all rows are gone, it
        # alone knows the end.
        partition.high = max(following, end)
        partition.appended = int(appended or 0)
    first = storage.query(SQL["first_row"], span)
    partition.low = first_offset(int(first[0][0] or 0)) if first else partition.high
    partition.staged_high = partition.high
    # Only rows since the size was last stored: summing a whole partition would read every page of
    # it at each start.
    counted = storage.query(SQL["bytes_between"], (row_id(partition.uid, following), span[1]))
    partition.size = size + int(counted[0][0] or 0)


def creation(uid: int, first_partition: int, spec: StreamSpec) -> list[Statement]:
    """The statements that write a new stream."""
    return [
        (
            SQL["create_stream"],
            [(uid, spec.name, msgspec.json.encode(spec))],
        ),
        (
            SQL["create_partition"],
            [(first_partition + number, uid, number) for number in range(spec.partitions)],
        ),
    ]


def change(uid: int, spec: StreamSpec) -> list[Statement]:
    """The statements that write changed settings of a stream."""
    return [(SQL["change_stream"], [(msgspec.json.encode(spec), uid)])]


def remember(partition: Partition) -> Statement:
    """Keep the partition's end and size, so that an emptied one goes on where it was."""
    return SQL["remember_end"], [(partition.high, partition.size, partition.uid)]
