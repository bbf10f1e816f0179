"""From a foreign system to our log: receive, append, remember, acknowledge. Exactly once.

The marks of the last messages are in the checkpoint, which lands in one transaction with
the events: a message that is delivered again because the node died before it could acknowledge it is
recognised, however long the node was away. As many marks are kept as messages can be in flight, and
those of former runs with them, since a system may deliver other messages before the old ones.
Nothing is ever refused for good: an event our log does not take keeps its place, without its value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from headrace.environment.failpoints import hit
from headrace.model.event import Event
from headrace.model.policy import (
    MAX_BATCH_BYTES,
    MAX_EVENT_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_KEY_BYTES,
)
from headrace.sources.base import SourceAppender, open_checkpoint
from headrace.sources.foreign.base import ForeignMessage, ForeignSource

# 128 bits: two of the few thousand marks that are kept together do not collide by chance.
MARK_BYTES = 16
MIN_MARKS = 100
# The checkpoint is written with every append, so it must stay small.
MAX_LEFT = 1_000
TOO_LARGE = "headrace-too-large"
HEADERS_DROPPED = "headrace-headers-dropped"
LATEST = 253_402_300_799_999_999
"""The last microsecond of the year 9999, behind which calendars end."""


class FeedState(msgspec.Struct, array_like=True, frozen=True):
    """The checkpoint of a feed, in one transaction with what it appended.

    Attributes:
        places: How far each part of a foreign log is read.
        marks: Digests of the last messages appended, oldest first.
        left: Digests from former runs, whose acknowledgement may have been lost.
    """

    places: dict[str, str] = {}
    marks: tuple[bytes, ...] = ()
    left: tuple[bytes, ...] = ()

    def inherited(self) -> FeedState:
        """The state as a new run finds it."""
        return FeedState(self.places, (), (*self.left, *self.marks)[-MAX_LEFT:])


_state = msgspec.msgpack.Decoder(FeedState)


class ForeignFeed:
    """Keeps one foreign system's messages coming. A `Source`; owned by the partition supervisor's task.

    Args:
        driver: Speaks with the system.
        in_flight: How many messages may be received and not acknowledged.
    """

    def __init__(self, driver: ForeignSource[Any], *, in_flight: int) -> None:
        self._driver = driver
        self._in_flight = in_flight
        self._keep = max(in_flight, MIN_MARKS)
        self._state = FeedState()

    async def run(self, appender: SourceAppender) -> None:
        """Receive, and emit; see `Source.run`."""
        row = await appender.checkpoint()
        state = FeedState() if row is None else decode_state(row, appender.stream)
        self._state = state.inherited()
        try:
            places = dict(await self._driver.connect(self._state.places))
            if places != self._state.places:
                self._state = msgspec.structs.replace(self._state, places=places)
                await appender.emit((), checkpoint=msgspec.msgpack.encode(self._state))
            while True:
                received = await self._driver.receive(self._in_flight)
                # Parts are acknowledged one by one, recognised messages among them: their first
                # acknowledgement was lost.
                for part in parts(received):
                    await self._take(appender, part)
                appender.works()
        finally:
            # Also on cancellation: an open connection would keep the system from delivering the
            # messages to the next owner.
            await self._driver.close()

    async def _take(
        self, appender: SourceAppender, messages: Sequence[ForeignMessage[Any]]
    ) -> None:
        hit("feed:before-append")
        fresh, state = judge(messages, self._state, keep=self._keep)
        if fresh:
            await appender.emit(
                [fitted(message.event) for message in fresh],
                checkpoint=msgspec.msgpack.encode(state),
            )
        self._state = state
        hit("feed:after-append")
        # After the append: the other order loses messages when the node dies in between. This one
        # repeats them, and marks recognise that.
        await self._driver.acknowledge(messages)
        hit("feed:after-acknowledge")


def decode_state(row: bytes, stream: str) -> FeedState:
    """Decode a checkpoint.

    Raises:
        Corrupt: The row is not ours.
    """
    return open_checkpoint(row, stream, _state.decode)


def judge(
    messages: Sequence[ForeignMessage[Any]], state: FeedState, *, keep: int
) -> tuple[list[ForeignMessage[Any]], FeedState]:
    """The messages not seen before, and what to remember once they are appended."""
    # Insertion order is age: a mark that comes again becomes the youngest.
    marks = dict.fromkeys(state.marks)
    left = dict.fromkeys(state.left)
    places = dict(state.places)
    fresh = []
    for message in messages:
        if message.place is not None:
            part, place = message.place
            places[part] = place
        if message.mark:
            mark = digest(message.mark)
            known = mark in marks or mark in left
            marks.pop(mark, None)
            left.pop(mark, None)
            marks[mark] = None
            # A mark alone is not enough: MQTT uses its numbers again, and only the flag says that
            # a message is a repetition.
            if known and message.repeated:
                continue
        fresh.append(message)
    return fresh, FeedState(places, tuple(marks)[-keep:], tuple(left))


def digest(mark: str) -> bytes:
    """A mark's short form."""
    return hashlib.blake2b(mark.encode("utf-8", "surrogatepass"), digest_size=MARK_BYTES).digest()


def parts(messages: Sequence[ForeignMessage[Any]]) -> Iterator[Sequence[ForeignMessage[Any]]]:
    """The messages in order, in runs that fit one append."""
    begin, size = 0, 0
    for index, message in enumerate(messages):
        # Bounded as `fitted` will bound it; the exact size is known only after encoding.
        each = min(len(message.event.value), MAX_EVENT_BYTES) + MAX_HEADER_BYTES + MAX_KEY_BYTES
        # Half: encoding and headers come on top, and the append must not be refused.
        if size and size + each > MAX_BATCH_BYTES // 2:
            yield messages[begin:index]
            begin, size = index, 0
        size += each
    if begin < len(messages):
        yield messages[begin:]


def headers_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """Headers by name; the values of one that comes several times as a JSON array, in their order."""
    found: dict[str, list[str]] = {}
    for name, text in pairs:
        found.setdefault(name, []).append(text)
    return {
        name: texts[0] if len(texts) == 1 else msgspec.json.encode(texts).decode()
        for name, texts in found.items()
    } or None


def fitted(event: Event) -> Event:
    """The event as our log takes it; what had to go is said in its headers."""
    value, key, headers = event.value, event.key, dict(event.headers or {})
    said: dict[str, str] = {}
    if len(headers) > MAX_HEADERS - 2 or _size(headers) > MAX_HEADER_BYTES - 256:
        said[HEADERS_DROPPED] = str(len(headers))
        headers = {}
    # Emptied, not refused: a message that is refused would be delivered again for ever and block
    # the queue.
    if len(value) > MAX_EVENT_BYTES:
        said[TOO_LARGE] = str(len(value))
        value = b""
    if key is not None and len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        # A digest keeps equal keys equal, and so their order; cutting would join different ones.
        key = digest(key).hex()
    if key is not None:
        # Lone surrogates cannot be encoded for the log.
        key = key.encode("utf-8", "replace").decode()
    headers |= said
    time = event.time
    if time is not None and not 0 <= time <= LATEST:
        # What is not a date: then it is when the event was appended.
        time = None
    return msgspec.structs.replace(event, value=value, key=key, time=time, headers=headers or None)


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(text.encode("utf-8", "replace")) for name, text in headers.items())
