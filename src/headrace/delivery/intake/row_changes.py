"""Row changes on their way to a function: those that tell of no row are left out, the others keyed.

A `ChangeFilter` stands where a pattern would; a `KeyedReader` stands before the log's own reader.
What cannot be read passes both untouched: it fails where the function opens it, so that attempts,
dead letters and their original bytes are as everywhere.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.record import Chunk, encode_events
from headrace.model.triggers.debezium import columns_key, open_envelope
from headrace.sources.foreign.feed import fitted
from headrace.storage.log.base import Reader

Wants = Callable[[Chunk], set[int]]


class ChangeFilter:
    """Which events of a chunk tell of a row; the others are counted by reason. Used by one partition worker.

    Args:
        pattern: What the trigger asks for beside; None for everything.
        skipped: Told how many records were left out, and why.
    """

    def __init__(self, pattern: Wants | None, skipped: Callable[[str, int], None]) -> None:
        self._pattern = pattern
        self._skipped = skipped

    def __call__(self, chunk: Chunk) -> set[int]:
        """The indices, from 0, of the events of `chunk` that are wanted."""
        meant = range(chunk.size) if self._pattern is None else self._pattern(chunk)
        events = chunk.events()
        reasons = {index: reason for index in meant if (reason := _no_change(events[index]))}
        for reason, count in Counter(reasons.values()).items():
            self._skipped(reason, count)
        return set(meant) - reasons.keys()


class KeyedReader:
    """Reads a partition, every row's changes under the row's own key. A `Reader`."""

    def __init__(self, reader: Reader, columns: tuple[str, ...]) -> None:
        self._reader = reader
        self._columns = columns

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        """As the log's own reader, but for the keys."""
        chunks = await self._reader.read(events=events, size=size)
        return [keyed(chunk, self._columns) for chunk in chunks]

    def watch(self, waiter: asyncio.Future[None]) -> None:
        """As the log's own reader."""
        self._reader.watch(waiter)

    def seek(self, offset: int) -> None:
        """As the log's own reader."""
        self._reader.seek(offset)

    @property
    def position(self) -> int:
        """The offset `read` goes on from."""
        return self._reader.position

    def close(self) -> None:
        """As the log's own reader."""
        self._reader.close()


def keyed(chunk: Chunk, columns: tuple[str, ...]) -> Chunk:
    """The same events at the same offsets, under the keys that `columns` of their rows give."""
    events = [_keyed(event, columns) for event in chunk.events()]
    offsets = None if chunk.offsets is None else chunk.offsets[chunk.low : chunk.high]
    return Chunk(
        chunk.stream,
        chunk.partition,
        chunk.start,
        len(events),
        encode_events(events),
        chunk.appended,
        0,
        len(events),
        chunk.hops,
        chunk.origin,
        offsets,
    )


def _keyed(event: Event, columns: tuple[str, ...]) -> Event:
    try:
        envelope = open_envelope(event.value, event.headers)
    except Invalid:
        return event
    key = None if isinstance(envelope, str) else columns_key(envelope, columns)
    return event if key is None else fitted(msgspec.structs.replace(event, key=key))


def _no_change(event: Event) -> str:
    """Why an event tells of no row; "" where it does, or cannot be read."""
    try:
        envelope = open_envelope(event.value, event.headers)
    except Invalid:
        return ""
    return envelope if isinstance(envelope, str) else ""
