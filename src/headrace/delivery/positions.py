"""Positions of functions in partitions, and their ownership.

A row of the store per (function, stream, partition): the owner's epoch, the watermark and the
sparse set. A claim raises the epoch, which fences the former owner (a commit checks the row that it
last saw, byte for byte).
"""

from __future__ import annotations

import functools

import msgspec

from headrace.delivery.unit import runs
from headrace.environment.failpoints import hit
from headrace.model.effects import Change, Check, DeadEvent, Progress, Put, Space, Trouble
from headrace.model.errors import Conflict, Corrupt, Fenced, Misuse
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.base import Broker

KEYS_KEPT = 1 << 14

_encoder = msgspec.msgpack.Encoder()
_ROW_HEAD = b"\x93"


class PositionRow(msgspec.Struct, frozen=True, gc=False):
    """Decoded content of a row."""

    epoch: int
    progress: Progress


class _StoredRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Encoding of a row: finished offsets above the watermark as runs `low, high, low, high, ...`."""

    epoch: int
    watermark: int
    runs: tuple[int, ...] = ()


_row_decoder = msgspec.msgpack.Decoder(_StoredRow)
_trouble_decoder = msgspec.msgpack.Decoder(tuple[Trouble, ...])
_event_decoder = msgspec.msgpack.Decoder(DeadEvent)


class StoredPosition(msgspec.Struct, frozen=True, gc=False):
    """State in the store of one stream's partition for one function.

    Attributes:
        trouble: Ranges that were failing.
        parked: Parked lane keys, and whether each is being redriven.
    """

    epoch: int
    progress: Progress
    trouble: tuple[Trouble, ...]
    parked: dict[bytes, bool]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A claimed partition: the row as now stored, which the next commit must still find."""

    row: bytes
    position: StoredPosition


@functools.lru_cache(maxsize=KEYS_KEPT)
def position_key(function: str, stream: str, partition: int) -> bytes:
    """Return the key of the position row, and of its trouble row. Cached, since every commit needs it."""
    return pack(function, stream, partition)


def place_of(key: bytes) -> tuple[str, str, int]:
    """Return function, stream and partition of a position row's key: names contain no NUL."""
    function, stream, partition = key.split(b"\x00", 2)
    return function.decode(), stream.decode(), int.from_bytes(partition, "big")


def encode_position(epoch: int, progress: Progress) -> bytes:
    """Encode a position row."""
    if not progress.sparse:
        return _encoder.encode(_StoredRow(epoch, progress.watermark))
    above: list[int] = []
    for low, high in runs(progress.sparse):
        above += (low, high)
    return _encoder.encode(_StoredRow(epoch, progress.watermark, tuple(above)))


def fence_of(function: str, at: tuple[str, int], epoch: int | None) -> Check:
    """Return a check that holds as long as the partition's owner has this epoch (None: it has no owner)."""
    # A row is an array of three that starts with the epoch: a prefix fixes the owner and leaves
    # the progress free.
    prefix = None if epoch is None else _ROW_HEAD + _encoder.encode(epoch)
    return Check(Space.POSITIONS, position_key(function, *at), prefix, fence=True)


async def fence_as_stored(storage: Storage, function: str, at: tuple[str, int]) -> Check:
    """Return a check that holds as long as no other owner claims the partition."""
    row = await storage.get(Space.POSITIONS, position_key(function, *at))
    epoch = None if row is None else decode_position(row).epoch
    return fence_of(function, at, epoch)


def decode_position(row: bytes) -> PositionRow:
    """Decode a position row.

    Raises:
        Corrupt: The row cannot be decoded.
    """
    try:
        found = _row_decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a position row is unreadable: {error}") from error
    # Runs rather than offsets: a slow event may have thousands of finished ones above it.
    pairs = zip(found.runs[::2], found.runs[1::2], strict=True)
    sparse = tuple(offset for low, high in pairs for offset in range(low, high))
    return PositionRow(found.epoch, Progress(found.watermark, sparse))


def encode_trouble(trouble: tuple[Trouble, ...]) -> bytes:
    """Encode a trouble row."""
    return _encoder.encode(trouble)


def decode_trouble(row: bytes | None) -> tuple[Trouble, ...]:
    """Decode a trouble row; no row means no failing range."""
    return () if row is None else _trouble_decoder.decode(row)


def encode_waiting(event: DeadEvent) -> bytes:
    """Encode a dead or parked event."""
    return _encoder.encode(event)


def decode_waiting(row: bytes) -> DeadEvent:
    """Decode a dead or parked event.

    Raises:
        Corrupt: The row is not one.
    """
    try:
        return _event_decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a waiting event's row is unreadable: {error}") from error


async def start_offset(broker: Broker, stream: str, partition: int, start: str) -> int:
    """Return the offset at which a new group starts: `earliest`, `latest`, a number, or `@micros`.

    Raises:
        Misuse: `start` is none of these.
    """
    extent = await broker.extent(stream, partition)
    if start == "earliest":
        return extent.low
    if start == "latest":
        return extent.high
    if start.startswith("@") and start[1:].isdigit():
        return await broker.offset_at(stream, partition, int(start[1:]))
    if start.isdigit():
        return min(max(int(start), extent.low), extent.high)
    raise Misuse(
        f"`{start}` is not a place to start at; write `earliest`, `latest`, an offset such as `1200`, "
        "or a time in microseconds such as `@1700000000000000`"
    )


async def claim(
    storage: Storage, broker: Broker, *, function: str, stream: str, partition: int, start: str
) -> Claim:
    """Claim the partition: raise its epoch and read its state.

    Raises:
        Fenced: Its row was deleted meanwhile.
    """
    key = position_key(function, stream, partition)
    while True:
        hit("claim:before-write")
        old = await storage.get(Space.POSITIONS, key)
        if old is None:
            begin = await start_offset(broker, stream, partition, start)
            found = PositionRow(0, Progress(begin))
        else:
            found = decode_position(old)
        row = encode_position(found.epoch + 1, found.progress)
        try:
            await storage.apply(
                Change(
                    # Compare-and-set: of two nodes that claim at once, one repeats.
                    checks=(Check(Space.POSITIONS, key, old),),
                    puts=(Put(Space.POSITIONS, key, row),),
                )
            )
        # Another node has claimed the partition meanwhile: read its row and raise that epoch.
        except Conflict:
            continue
        hit("claim:after-write")
        break
    # Read after the write: from here on the former owner cannot change these rows any more.
    there, position = await stored(storage, function, stream, partition)
    if position.epoch == found.epoch + 1:
        return Claim(there, position)
    # Another owner has claimed it meanwhile. Keep our own row: with the other owner's row our
    # commits would pass its fence. The first commit or read then finds that the partition is lost.
    return Claim(row, msgspec.structs.replace(position, epoch=found.epoch + 1))


async def stored(
    storage: Storage, function: str, stream: str, partition: int
) -> tuple[bytes, StoredPosition]:
    """Return the position row, and the decoded state of the partition.

    Raises:
        Fenced: There is no row any more.
    """
    key = position_key(function, stream, partition)
    row = await storage.get(Space.POSITIONS, key)
    if row is None:
        raise Fenced(f"`{function}` has no position in `{stream}/{partition}` any more")
    found = decode_position(row)
    trouble = decode_trouble(await storage.get(Space.TROUBLE, key))
    parked = await parked_keys(storage, function, stream, partition)
    return row, StoredPosition(found.epoch, found.progress, trouble, parked)


async def parked_keys(
    storage: Storage, function: str, stream: str, partition: int
) -> dict[bytes, bool]:
    """Return the parked lane keys of a partition, and whether each is being redriven."""
    prefix = pack(function, stream, partition)
    found: dict[bytes, bool] = {}
    async for page in scan_pages(storage, Space.PARKED_KEYS, prefix, after(prefix)):
        for packed, value in page:
            found[packed[len(prefix) :]] = value == b"draining"
    return found
