"""The rows of the `log` table: one a blob, with a checksum over all of it.

The row's id is (partition uid << 40) | first offset. The checksum covers the blob and everything
said about it, so that a flipped bit anywhere in the row is noticed before a reader gets it.
"""

from __future__ import annotations

import struct
from zlib import crc32

from headrace.model.errors import Corrupt
from headrace.model.record import Chunk
from headrace.storage.kv.log_appends import Cell
from headrace.storage.log.log_state import Partition

# An integer primary key is SQLite's own row id: no index besides the table. 2**40 events a
# partition, 2**23 partitions.
OFFSET_BITS = 40
_head = struct.Struct(">qqqq")


def row_id(uid: int, offset: int) -> int:
    """The id of the row of partition `uid` that begins at `offset`."""
    return uid << OFFSET_BITS | offset


def first_offset(row: int) -> int:
    """The first offset of the row with this id."""
    return row & ((1 << OFFSET_BITS) - 1)


def encode_row(partition: Partition, chunk: Chunk) -> tuple[Cell, ...]:
    """The row of a chunk, in the order of columns of `insert_chunk`."""
    identity = row_id(partition.uid, chunk.first)
    offsets = (
        None if chunk.offsets is None else struct.pack(f">{len(chunk.offsets)}Q", *chunk.offsets)
    )
    checksum = _checksum(
        identity, chunk.count, chunk.appended, chunk.hops, chunk.origin, offsets, chunk.body
    )
    return (
        identity,
        chunk.count,
        chunk.appended,
        chunk.hops,
        chunk.origin,
        offsets,
        checksum,
        chunk.body,
    )


def decode_row(partition: Partition, row: tuple[Cell, ...]) -> Chunk:
    """The chunk of a row.

    Raises:
        Corrupt: The row does not match its checksum.
    """
    identity, count, appended, hops, origin, offsets, checksum, body = row
    if not (
        # SQLite checks types in STRICT tables when it writes; what it reads from a damaged page
        # may be of any.
        isinstance(identity, int)
        and isinstance(count, int)
        and isinstance(appended, int)
        and isinstance(hops, int)
        and isinstance(origin, str)
        and isinstance(body, bytes)
        and (offsets is None or isinstance(offsets, bytes))
        and _checksum(identity, count, appended, hops, origin, offsets, body) == checksum
    ):
        first = first_offset(identity) if isinstance(identity, int) else "?"
        raise Corrupt(
            f"the record at `{partition.stream}/{partition.number}/{first}` does not match its "
            "checksum: the disk has changed it; restore a copy, or reset the group beyond it"
        )
    return Chunk(
        partition.stream,
        partition.number,
        first_offset(identity),
        count,
        body,
        appended,
        0,
        count,
        hops,
        origin,
        None if offsets is None else struct.unpack(f">{len(offsets) // 8}Q", offsets),
    )


def _checksum(
    identity: int,
    count: int,
    appended: int,
    hops: int,
    origin: str,
    offsets: bytes | None,
    body: bytes,
) -> int:
    head = _head.pack(identity, count, appended, hops) + origin.encode() + (offsets or b"")
    # Over the head as well: a blob with another row's offset would be delivered as that row's
    # events.
    return crc32(body, crc32(head))
