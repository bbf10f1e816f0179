"""How far a function has come in a partition, and who may say so.

A row of the store per (function, stream, partition): the owner's epoch, the watermark and the sparse
set. Claiming raises the epoch, so that whoever held the partition before can commit nothing more
(the commit checks the row it last saw, byte for byte).
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
    """What a row says."""

    epoch: int
    progress: Progress


class _StoredRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row's form: finished offsets above the watermark as runs `low, high, low, high, ...`."""

    epoch: int
    watermark: int
    runs: tuple[int, ...] = ()


_row_decoder = msgspec.msgpack.Decoder(_StoredRow)
_trouble_decoder = msgspec.msgpack.Decoder(tuple[Trouble, ...])
_event_decoder = msgspec.msgpack.Decoder(DeadEvent)


class StoredPosition(msgspec.Struct, frozen=True, gc=False):
    """What the store holds of one stream's partition for one function.

    Attributes:
        trouble: Ranges that were failing.
        parked: Lane keys that wait, and whether each is being redriven.
    """

    epoch: int
    progress: Progress
    trouble: tuple[Trouble, ...]
    parked: dict[bytes, bool]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A partition taken over: the row as now stored, which the next commit must still find."""

    row: bytes
    standing: StoredPosition


@functools.lru_cache(maxsize=KEYS_KEPT)
def position_key(function: str, stream: str, partition: int) -> bytes:
    """Where the position row stands; also the key of its trouble row. Asked for at every commit."""
    return pack(function, stream, partition)


def place_of(key: bytes) -> tuple[str, str, int]:
    """Function, stream and partition of a position row's key: the names hold no NUL."""
    function, stream, partition = key.split(b"\x00", 2)
    return function.decode(), stream.decode(), int.from_bytes(partition, "big")


def encode_position(epoch: int, progress: Progress) -> bytes:
    """The stored row."""
    if not progress.sparse:
        return _encoder.encode(_StoredRow(epoch, progress.watermark))
    above: list[int] = []
    for low, high in runs(progress.sparse):
        above += (low, high)
    return _encoder.encode(_StoredRow(epoch, progress.watermark, tuple(above)))


def fence_of(function: str, at: tuple[str, int], epoch: int | None) -> Check:
    """Hold as long as the partition's owner has this epoch (None: it has none), whatever its progress."""
    # A row is an array of three, of which the epoch comes first.
    prefix = None if epoch is None else _ROW_HEAD + _encoder.encode(epoch)
    return Check(Space.POSITIONS, position_key(function, *at), prefix, fence=True)


async def fence_as_stored(storage: Storage, function: str, at: tuple[str, int]) -> Check:
    """Hold as long as nobody claims the partition, whoever owns it now."""
    row = await storage.get(Space.POSITIONS, position_key(function, *at))
    epoch = None if row is None else decode_position(row).epoch
    return fence_of(function, at, epoch)


def decode_position(row: bytes) -> PositionRow:
    """Open a stored row.

    Raises:
        Corrupt: It is not one.
    """
    try:
        found = _row_decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a position row is unreadable: {error}") from error
    pairs = zip(found.runs[::2], found.runs[1::2], strict=True)
    sparse = tuple(offset for low, high in pairs for offset in range(low, high))
    return PositionRow(found.epoch, Progress(found.watermark, sparse))


def encode_trouble(trouble: tuple[Trouble, ...]) -> bytes:
    """The stored row."""
    return _encoder.encode(trouble)


def decode_trouble(row: bytes | None) -> tuple[Trouble, ...]:
    """Open a stored row; no row is not trouble."""
    return () if row is None else _trouble_decoder.decode(row)


def encode_waiting(event: DeadEvent) -> bytes:
    """A dead or parked event as stored."""
    return _encoder.encode(event)


def decode_waiting(row: bytes) -> DeadEvent:
    """A dead or parked event as it was.

    Raises:
        Corrupt: The row is not one.
    """
    try:
        return _event_decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a waiting event's row is unreadable: {error}") from error


async def start_offset(broker: Broker, stream: str, partition: int, start: str) -> int:
    """The offset a new group begins at: `earliest`, `latest`, a number, or `@micros`.

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
    """Take the partition over: raise its epoch and read what is open.

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
                    checks=(Check(Space.POSITIONS, key, old),),
                    puts=(Put(Space.POSITIONS, key, row),),
                )
            )
        except Conflict:
            continue
        hit("claim:after-write")
        break
    there, standing = await stored(storage, function, stream, partition)
    if standing.epoch == found.epoch + 1:
        return Claim(there, standing)
    # Ours, whatever stands there by now: with the row of who claimed it meanwhile we would pass for it.
    # Like this the first look at the store finds that the partition is lost.
    return Claim(row, msgspec.structs.replace(standing, epoch=found.epoch + 1))


async def stored(
    storage: Storage, function: str, stream: str, partition: int
) -> tuple[bytes, StoredPosition]:
    """The position row, and what stands beside it.

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
    """The lane keys parked in a partition, and whether each is being redriven."""
    prefix = pack(function, stream, partition)
    found: dict[bytes, bool] = {}
    async for page in scan_pages(storage, Space.PARKED_KEYS, prefix, after(prefix)):
        for packed, value in page:
            found[packed[len(prefix) :]] = value == b"draining"
    return found
