"""Contents of a world's streams: values become events, and events are read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from headrace.model.codec import Coder
from headrace.model.due_time import Moment, queue_headers
from headrace.model.durations import Duration
from headrace.model.errors import Misuse
from headrace.model.event import Event as Fact
from headrace.sdk.event import Event, open_chunk
from headrace.storage.log.base import Broker
from headrace.testing.hosts import at_once

PAGE_EVENTS, PAGE_BYTES = 10_000, 64 << 20


def facts_of(
    values: Sequence[Any],
    coder: Coder,
    *,
    key: str | Callable[[Any], str] | None,
    id: str | None,
    time: datetime | float | None,
    headers: dict[str, str] | None,
    delay: Duration | None = None,
    at: Moment | None = None,
) -> list[Fact]:
    """The values as events that can be appended; what is an event already stays as it is.

    Raises:
        Misuse: One id is to name several events, or `delay` and `at` cannot be.
    """
    if id is not None and len(values) != 1:
        raise Misuse(f"`id={id!r}` names one event, but {len(values)} are published")
    moment = time.timestamp() if isinstance(time, datetime) else time
    micros = None if moment is None else round(moment * 1e6)
    due = queue_headers(delay, at)
    headers = {**(headers or {}), **due} if due else headers
    return [
        value
        if isinstance(value, Fact)
        else Fact(coder.encode(value), key(value) if callable(key) else key, micros, id, headers)
        for value in values
    ]


def events_of(broker: Broker, stream: str, coder: Coder) -> list[Event[Any]]:
    """Every event the stream holds, in the order they were appended."""
    found: list[tuple[int, int, int, Event[Any]]] = []
    for partition in range(broker.stream(stream).partitions):
        extent = at_once(broker.extent(stream, partition))
        offset = extent.low
        while offset < extent.high:
            chunks = at_once(
                broker.fetch(stream, partition, offset, events=PAGE_EVENTS, size=PAGE_BYTES)
            )
            if not chunks:
                break
            for chunk in chunks:
                found += (
                    (chunk.appended, partition, event.offset, event)
                    for event in open_chunk(chunk, 0, coder.decode)
                )
            offset = chunks[-1].end
    return [event for *_, event in sorted(found, key=lambda row: row[:3])]
