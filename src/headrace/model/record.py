"""Events at positions: the chunk that travels from log to function, and the append going back.

A chunk is a blob of events that share a partition. It is decoded only where its content is needed
(a filter, a lane, the function); the straight path hands the same bytes from the disk to the child.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from headrace.model.errors import Corrupt
from headrace.model.event import Event

_events = msgspec.msgpack.Decoder(list[Event])
_encoder = msgspec.msgpack.Encoder()


class Position(msgspec.Struct, array_like=True, frozen=True, gc=False, order=True):
    """Position of an event: `stream`, `partition` and `offset` (from 0, without gaps)."""

    stream: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.stream}/{self.partition}/{self.offset}"


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The events `[low, high)` of a stored blob of `count` events.

    Attributes:
        stream: The stream's full name.
        partition: From 0.
        first: The offset of the blob's first event.
        count: How many events the blob holds.
        body: A msgpack array of `Event` arrays.
        appended: When the log took it, in microseconds since the epoch.
        low: Index in the blob of the first event meant.
        high: Index after the last event meant.
        hops: How many functions an event's lineage has passed through.
        origin: The lineage's root, a position or an HTTP request id.
        offsets: The absolute offset of every event in the blob where they have gaps (a compacted
            stream, or events picked one by one); None where they follow each other.
    """

    stream: str
    partition: int
    first: int
    count: int
    body: bytes
    appended: int
    low: int
    high: int
    hops: int = 0
    origin: str = ""
    offsets: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of events in it."""
        return self.high - self.low

    @property
    def start(self) -> int:
        """The offset of the first event meant."""
        # As `offset_of(self.low)`, without a call: it is asked several times for each run.
        return self.first + self.low if self.offsets is None else self.offsets[self.low]

    @property
    def end(self) -> int:
        """The offset after the last event meant (the next one to read)."""
        return self.offset_of(self.high - 1) + 1 if self.high > self.low else self.start

    def offset_of(self, index: int) -> int:
        """The offset of the event at `index` of the blob."""
        return self.first + index if self.offsets is None else self.offsets[index]

    def events(self) -> list[Event]:
        """Decode the events meant.

        Raises:
            Corrupt: The blob is not an array of `count` events.
        """
        events = decode_events(self.body)
        if len(events) != self.count:
            raise Corrupt(
                f"`{self.stream}/{self.partition}/{self.first}` holds {len(events)} events, not {self.count}"
            )
        return events[self.low : self.high] if self.size != self.count else events

    def window(self, low: int, high: int) -> Chunk:
        """The same blob, meaning only the events at blob indices `[low, high)`."""
        if low == self.low and high == self.high:
            return self
        return Chunk(
            self.stream,
            self.partition,
            self.first,
            self.count,
            self.body,
            self.appended,
            low,
            high,
            self.hops,
            self.origin,
            self.offsets,
        )

    def below(self, offset: int) -> int:
        """Count the events in it that are before `offset`."""
        if self.offsets is None:
            return min(max(offset - self.first - self.low, 0), self.size)
        return sum(1 for known in self.offsets[self.low : self.high] if known < offset)


AppendKind = Literal["", "delayed", "cancel"]


class Append(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events bound for one partition, as a blob.

    Attributes:
        stream: The stream's full name.
        partition: From 0.
        count: How many events the blob holds.
        body: A msgpack array of `Event` arrays.
        hops: The lineage's length at these events.
        origin: The lineage's root.
        ids: The ids the producer gave, one per event ("" where none was given), or None where no
            event has one; only events with ids are looked up in the dedupe window.
        later: Not to be appended now, but kept under this key until it is due; b"" for at once.
        kind: `delayed` where some of the events say when they may be received, which only messages
            of a queue can; `cancel` brings no events, but the `ids` of messages that wait for their
            time and are not to be delivered.
    """

    stream: str
    partition: int
    count: int
    body: bytes
    hops: int = 0
    origin: str = ""
    ids: tuple[str, ...] | None = None
    later: bytes = b""
    kind: AppendKind = ""


NO_EVENTS = _encoder.encode([])
"""The blob of no events."""


def encode_events(events: Sequence[Event]) -> bytes:
    """The blob of `events`."""
    return _encoder.encode(events)


def decode_events(body: bytes) -> list[Event]:
    """Open a blob.

    Raises:
        Corrupt: The bytes are not a msgpack array of event arrays.
    """
    try:
        return _events.decode(body)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a blob of {len(body)} bytes is not an array of events: {error}") from error


def positions(chunks: Sequence[Chunk]) -> Iterator[Position]:
    """The position of every event meant, in order."""
    for chunk in chunks:
        for index in range(chunk.low, chunk.high):
            yield Position(chunk.stream, chunk.partition, chunk.offset_of(index))
