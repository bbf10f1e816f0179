"""Browsing a stream: a page of records from one or all partitions, and where to go on.

A cursor is text, `partition:offset` pairs joined by commas; the client keeps it. Long polls look
at the log again after ever longer pauses, so that this works the same with every broker; how many may
wait is bounded by `admission`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.delivery.positions import start_offset
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.http.response import event_view, rfc3339
from headrace.model.errors import Invalid, Unknown
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Position
from headrace.storage.log.base import Broker

MAX_RECORDS = 1_000
MAX_PAGE_BYTES = 1 << 20
MAX_WAIT_S = 30.0
_FIRST_PAUSE_S = 0.01
_LAST_PAUSE_S = 0.25


class Page(msgspec.Struct, frozen=True):
    """Some records, in the order they were appended, and where each partition goes on."""

    records: list[dict[str, Any]]
    cursor: dict[int, int]


async def starting_cursor(
    broker: Broker, stream: StreamSpec, partition: int | None, start: str
) -> dict[int, int]:
    """Where `start` stands in the partition, or in each.

    Raises:
        Unknown: The stream has no such partition.
        Misuse: `start` is not a place.
    """
    if partition is not None and partition >= stream.partitions:
        raise Unknown(
            f"stream `{stream.name}` has no partition {partition}; "
            f"it has {stream.partitions}, numbered from 0"
        )
    chosen = range(stream.partitions) if partition is None else (partition,)
    return {number: await start_offset(broker, stream.name, number, start) for number in chosen}


def cursor_text(cursor: Mapping[int, int]) -> str:
    """A cursor as it is handed out."""
    return ",".join(f"{partition}:{offset}" for partition, offset in cursor.items())


def parse_cursor(text: str, stream: StreamSpec) -> dict[int, int]:
    """A cursor as it comes back.

    Raises:
        Invalid: It is not one of this stream.
    """
    cursor: dict[int, int] = {}
    for pair in text.split(","):
        left, colon, right = pair.partition(":")
        number = left.isascii() and left.isdigit() and len(left) < 8
        if not colon or not number or not (right.isascii() and right.isdigit() and len(right) < 19):
            raise Invalid(f"`cursor={text[:80]}` is none; pass on the one the last answer gave")
        if int(left) >= stream.partitions:
            raise Invalid(f"`cursor={text[:80]}` is not one of stream `{stream.name}`")
        cursor[int(left)] = int(right)
    return cursor


async def read_page(
    broker: Broker, stream: StreamSpec, cursor: dict[int, int], limit: int, slices: Slices
) -> Page:
    """The next records after a cursor, up to `limit`, none where there are none."""
    size = max(MAX_PAGE_BYTES // len(cursor), 65_536)
    taken = 0
    found: list[tuple[int, int, int, Event, int, str]] = []
    after = dict(cursor)
    for partition, offset in cursor.items():
        extent = await broker.extent(stream.name, partition)
        # A partition gives one event at least, however large: what does not fit waits its turn.
        if offset >= extent.high or taken > MAX_PAGE_BYTES:
            continue
        after[partition] = max(offset, extent.low)
        chunks = await broker.fetch(stream.name, partition, offset, events=limit, size=size)
        for chunk in chunks:
            for index, event in enumerate(chunk.events(), start=chunk.low):
                taken += len(event.value)
                found.append(
                    (
                        chunk.appended,
                        partition,
                        chunk.offset_of(index),
                        event,
                        chunk.hops,
                        chunk.origin,
                    )
                )
        await slices.step()
    found.sort(key=lambda row: row[:3])
    records: list[dict[str, Any]] = []
    async for appended, partition, offset, event, hops, origin in slices.over(found[:limit]):
        after[partition] = offset + 1
        records.append(record_view(stream.name, partition, offset, appended, event, hops, origin))
    return Page(records, after)


async def wait_page(
    broker: Broker,
    stream: StreamSpec,
    cursor: dict[int, int],
    limit: int,
    *,
    seconds: float,
    clock: Clock,
    over: Callable[[], bool],
) -> Page:
    """As `read_page`, waiting up to `seconds` for a first record, or until it is `over`."""
    deadline = clock.monotonic() + seconds
    pause = _FIRST_PAUSE_S
    while True:
        page = await read_page(broker, stream, cursor, limit, Slices(clock))
        left = deadline - clock.monotonic()
        if page.records or left <= 0 or over():
            return page
        await clock.sleep(min(pause, left))
        pause = min(pause * 2, _LAST_PAUSE_S)


def record_view(
    stream: str, partition: int, offset: int, appended: int, event: Event, hops: int, origin: str
) -> dict[str, Any]:
    """A record as JSON data."""
    shown: dict[str, Any] = {
        "position": str(Position(stream, partition, offset)),
        "partition": partition,
        "offset": offset,
        "appended": rfc3339(appended),
    }
    if hops:
        shown["hops"] = hops
        shown["origin"] = origin
    return shown | event_view(event)
