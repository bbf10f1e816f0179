"""Parked keys: a failing key waits, with its later events in order behind it; other keys continue.

Rows of the store: one per parked event (`parked`, ordered by offset within its key) and one per
parked key (`parked_keys`: waiting, or draining while it is redriven). Only the partition's worker
writes them, so that no event can pass a parked one: operators send requests to the worker.
"""

from __future__ import annotations

import msgspec

from headrace.delivery.positions import decode_waiting
from headrace.delivery.unit import FOREVER, Unit
from headrace.model.effects import DeadEvent, Space
from headrace.model.event import Event
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack

PAGE = 1_000
WAITING = b"waiting"
DRAINING = b"draining"


class ParkedKey(msgspec.Struct, frozen=True):
    """A parked key.

    Attributes:
        key: The author's key; None where events without a key were parked one by one.
        status: `waiting`, `draining`, or `partition` where a whole partition is stopped.
        events: How many events wait.
        since: When the first of them failed, in microseconds since the epoch.
        cause: Why it failed, as text.
    """

    function: str
    stream: str
    partition: int
    key: str | None
    status: str
    events: int
    since: int
    cause: str
    lane: str = ""


def lane_of(event: Event, offset: int) -> bytes:
    """Return the lane of an event: its key, or its offset if it has none.

    Ends in 00 and holds no other 00, so that it can be a part of a packed key.
    """
    # A letter in front, so that a key can never be equal to an offset.
    return pack("k" + event.key) if event.key is not None else pack("o") + pack(offset)


def lane_name(lane: bytes) -> str | None:
    """Return the author's key of a lane; None for an event without a key."""
    return lane[1:-1].replace(b"\x00\xff", b"\x00").decode() if lane.startswith(b"k") else None


def parked_row_key(function: str, stream: str, partition: int, lane: bytes, offset: int) -> bytes:
    """Return the key of a parked event's row."""
    return pack(function, stream, partition) + lane + pack(offset)


def parked_key_key(function: str, stream: str, partition: int, lane: bytes) -> bytes:
    """Return the key of a parked key's row."""
    return pack(function, stream, partition) + lane


def parked_end(key: bytes) -> bytes:
    """Return the end of the event rows of a parked key; `key` is its own row's key.

    Not every row with this prefix belongs to it: a longer key may continue with a NUL, which is
    written 00 FF. An offset never starts with FF.
    """
    return key + b"\xff"


async def parked_events(
    storage: Storage, function: str, stream: str, partition: int, lane: bytes, *, limit: int
) -> list[DeadEvent]:
    """Return the first parked events of a lane, in order."""
    low = parked_key_key(function, stream, partition, lane)
    page = await storage.scan(Space.PARKED, low, parked_end(low), limit=limit)
    return [decode_waiting(value) for _, value in page]


async def parked_offsets(storage: Storage, function: str, stream: str, partition: int) -> set[int]:
    """Return the offsets of all parked events of a partition, also those being redriven."""
    prefix = pack(function, stream, partition)
    found: set[int] = set()
    # The offset is the last part of the key, so the rows need not be decoded.
    async for page in scan_pages(storage, Space.PARKED, prefix, after(prefix), limit=PAGE):
        found.update(int.from_bytes(key[-8:], "big") for key, _ in page)
    return found


def chunk_of(waiting: DeadEvent) -> Chunk:
    """Return a chunk of one that delivers a parked or dead event again, at its original position."""
    position = waiting.position
    return Chunk(
        position.stream,
        position.partition,
        position.offset,
        1,
        encode_events([decode_event(waiting.event)]),
        waiting.appended,
        0,
        1,
        waiting.hops,
        waiting.origin,
    )


def redriven(waiting: DeadEvent) -> Unit:
    """Return the unit that runs a parked event again, with the attempts that it has spent."""
    # An event that was parked behind another one has no failure of its own.
    cause = waiting.cause if waiting.spent else None
    return Unit((chunk_of(waiting),), waiting.spent, waiting.due, cause, parked=(waiting,))


def tried(again: Unit, row: DeadEvent) -> DeadEvent | None:
    """Return the row of a redriven event that waits for its next attempt; None if the row is the same already.

    An event that stops the partition is not stored: the row cannot hold an operator's decision.
    """
    if again.due >= FOREVER or (again.attempts, again.due) == (row.spent, row.due):
        return None
    cause = again.cause if again.cause is not None else row.cause
    return msgspec.structs.replace(row, spent=again.attempts, due=again.due, cause=cause)


def encode_event(event: Event) -> bytes:
    """Encode one event, as a parked or dead row stores it."""
    return encode_events([event])


def decode_event(body: bytes) -> Event:
    """Decode the event of a parked or dead row.

    Raises:
        Corrupt: The bytes are not an event.
    """
    return decode_events(body)[0]
