"""A failing key waits, its followers in order behind it; everything else flows on.

Rows of the store: one per parked event (`parked`, ordered by offset within its key) and one per
parked key (`parked_keys`: waiting, or draining while it is redriven). Only the partition's partition worker
writes them, so that a follower can never slip past: operators leave their wish with the partition worker.
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
    """A key that waits.

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
    """What keeps this event in order with others: its key, or itself where it has none.

    Ends in 00 and holds no other, so that it can stand inside a packed key.
    """
    return pack("k" + event.key) if event.key is not None else pack("o") + pack(offset)


def lane_name(lane: bytes) -> str | None:
    """The author's key of a lane; None for an event without a key."""
    return lane[1:-1].replace(b"\x00\xff", b"\x00").decode() if lane.startswith(b"k") else None


def parked_row_key(function: str, stream: str, partition: int, lane: bytes, offset: int) -> bytes:
    """Where a parked event stands."""
    return pack(function, stream, partition) + lane + pack(offset)


def parked_key_key(function: str, stream: str, partition: int, lane: bytes) -> bytes:
    """Where a parked key stands."""
    return pack(function, stream, partition) + lane


def parked_end(key: bytes) -> bytes:
    """Where the rows of a parked key end; `key` is where the key itself stands.

    Not simply every row it is a prefix of: those are also the rows of longer keys that go on with
    a NUL, which is written 00 FF. An offset never begins with FF.
    """
    return key + b"\xff"


async def parked_events(
    storage: Storage, function: str, stream: str, partition: int, lane: bytes, *, limit: int
) -> list[DeadEvent]:
    """The first events that wait in a lane, in order."""
    low = parked_key_key(function, stream, partition, lane)
    page = await storage.scan(Space.PARKED, low, parked_end(low), limit=limit)
    return [decode_waiting(value) for _, value in page]


async def parked_offsets(storage: Storage, function: str, stream: str, partition: int) -> set[int]:
    """Where everything stands that waits in a partition, being redriven or not."""
    prefix = pack(function, stream, partition)
    found: set[int] = set()
    async for page in scan_pages(storage, Space.PARKED, prefix, after(prefix), limit=PAGE):
        found.update(int.from_bytes(key[-8:], "big") for key, _ in page)
    return found


def chunk_of(waiting: DeadEvent) -> Chunk:
    """The chunk of one that delivers a parked or dead event again, from where it first stood."""
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
    """The unit that runs a parked event again: with the attempts that were spent on it already."""
    cause = waiting.cause if waiting.spent else None
    return Unit((chunk_of(waiting),), waiting.spent, waiting.due, cause, parked=(waiting,))


def tried(again: Unit, row: DeadEvent) -> DeadEvent | None:
    """The row of a redriven event once it waits for its next attempt; None where it says so already.

    One that stops the partition is not written down: the row has no place for an operator's word.
    """
    if again.due >= FOREVER or (again.attempts, again.due) == (row.spent, row.due):
        return None
    cause = again.cause if again.cause is not None else row.cause
    return msgspec.structs.replace(row, spent=again.attempts, due=again.due, cause=cause)


def encode_event(event: Event) -> bytes:
    """One event's bytes, as a parked or dead row keeps them."""
    return encode_events([event])


def decode_event(body: bytes) -> Event:
    """The event of a parked or dead row.

    Raises:
        Corrupt: The bytes are not an event.
    """
    return decode_events(body)[0]
