"""Row changes on their way to a function: messages without a row are left out, the others get keys.

A `ChangeFilter` takes the place of a pattern; a `KeyedReader` wraps the log's reader. An unreadable event passes both
unchanged: it fails when the function decodes it, so that attempts, dead letters and their original bytes are as for any
event.
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
    """Selects the events of a chunk that describe a row; counts the others by reason. Used by one partition worker.

    Args:
        pattern: The trigger's additional pattern; None for everything.
        skipped: Called with the reason and the number of records that were left out.
    """

    def __init__(self, pattern: Wants | None, skipped: Callable[[str, int], None]) -> None:
        self._pattern = pattern
        self._skipped = skipped

    def __call__(self, chunk: Chunk) -> set[int]:
        """Return the indices, from 0, of the events of `chunk` that are selected."""
        meant = range(chunk.size) if self._pattern is None else self._pattern(chunk)
        events = chunk.events()
        reasons = {index: reason for index in meant if (reason := _no_change(events[index]))}
        for reason, count in Counter(reasons.values()).items():
            self._skipped(reason, count)
        return set(meant) - reasons.keys()


class KeyedReader:
    """Reads a partition with the key of its row on every change. A `Reader`."""

    def __init__(self, reader: Reader, columns: tuple[str, ...]) -> None:
        self._reader = reader
        self._columns = columns

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        """As the log's reader, except for the keys."""
        chunks = await self._reader.read(events=events, size=size)
        return [keyed(chunk, self._columns) for chunk in chunks]

    def watch(self, waiter: asyncio.Future[None]) -> None:
        """As the log's reader."""
        self._reader.watch(waiter)

    def seek(self, offset: int) -> None:
        """As the log's reader."""
        self._reader.seek(offset)

    @property
    def position(self) -> int:
        """Return the offset of the next `read`."""
        return self._reader.position

    def close(self) -> None:
        """As the log's reader."""
        self._reader.close()


def keyed(chunk: Chunk, columns: tuple[str, ...]) -> Chunk:
    """Return the same events at the same offsets, with keys from `columns` of their rows."""
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
    # Unreadable: it fails in the function, where retries and the dead letter apply.
    except Invalid:
        return event
    key = None if isinstance(envelope, str) else columns_key(envelope, columns)
    return event if key is None else fitted(msgspec.structs.replace(event, key=key))


def _no_change(event: Event) -> str:
    """Return why an event describes no row; "" if it does, or cannot be read."""
    try:
        envelope = open_envelope(event.value, event.headers)
    # Selected, so that it fails in the function instead of disappearing here.
    except Invalid:
        return ""
    return envelope if isinstance(envelope, str) else ""
