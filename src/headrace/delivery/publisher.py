"""The edge of the log: events are checked, given a partition, and made durable together.

What is oversize or malformed is refused here, before a byte is stored; what is accepted is answered
only after the fsync.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.delivery.delays import Delays, delay_of
from headrace.keepers.brokers.base import Broker
from headrace.model.errors import Invalid, Misuse, TooLarge
from headrace.model.event import Event
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.partitioning import partition_of
from headrace.model.policy import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_KEY_BYTES,
)
from headrace.model.record import Append, Position, encode_events


class Published(msgspec.Struct, frozen=True):
    """Where each event landed, in the order given; None for a duplicate that was dropped.

    Positions of events in a chunk that held duplicates are those of the survivors, in order.
    """

    positions: list[Position | None]
    duplicates: int


class Publisher:
    """Puts events on streams on behalf of producers outside functions."""

    def __init__(self, broker: Broker, delays: Delays | None = None) -> None:
        self._broker, self._delays = broker, delays
        self._turn = 0

    async def publish(
        self, stream: str, events: Sequence[Event], *, hops: int = 0, origin: str = ""
    ) -> Published:
        """Make `events` durable on `stream`, all or none.

        Raises:
            Unknown: There is no such stream.
            Invalid: An event breaks a rule; the message names it by its index.
            TooLarge: An event, or all of them together, is larger than allowed.
            DiskFull, Overloaded, Unavailable: As `Broker.append`.
        """
        spec = self._broker.stream(stream)
        if len(events) > MAX_BATCH:
            raise TooLarge(
                f"{len(events)} events in one publish; send at most {MAX_BATCH} at a time"
            )
        for index, event in enumerate(events):
            _check(spec, index, event)
        appends, order = self._spread(spec, events, hops, origin)
        if spec.queue is not None and self._delays is not None:
            return await self._send(self._delays, spec, events, appends, order)
        applied = await self._broker.append(appends)
        return _report(events, appends, order, applied.positions, applied.duplicates)

    async def _send(
        self,
        delays: Delays,
        spec: StreamSpec,
        events: Sequence[Event],
        appends: list[Append],
        order: list[list[int]],
    ) -> Published:
        """Put messages on a queue; those that have to wait have no position yet."""
        parts: list[Append] = []
        places: list[list[int]] = []
        for append, indices in zip(appends, order, strict=True):
            by_delay: dict[float, list[int]] = {}
            for index in indices:
                by_delay.setdefault(delay_of(events[index], spec.queue or QueueSpec()), []).append(
                    index
                )
            parts += delays.held_back(spec, append)
            places += by_delay.values()
        applied = await delays.append(parts)
        return _report(events, parts, places, applied.positions, applied.duplicates)

    def _spread(
        self, spec: StreamSpec, events: Sequence[Event], hops: int, origin: str
    ) -> tuple[list[Append], list[list[int]]]:
        """The appends, and for each the indices of its events."""
        if spec.partitions == 1:
            groups = {0: list(range(len(events)))} if events else {}
        else:
            groups = {}
            # Events without a key share a partition for one publish, so that a batch stays a batch.
            self._turn += 1
            for index, event in enumerate(events):
                number = (
                    partition_of(event.key, spec.partitions)
                    if event.key is not None
                    else self._turn % spec.partitions
                )
                groups.setdefault(number, []).append(index)
        appends = []
        for number, indices in groups.items():
            chosen = [events[index] for index in indices] if len(groups) > 1 else events
            body = encode_events(chosen)
            if len(body) > MAX_BATCH_BYTES:
                raise TooLarge(
                    f"{len(chosen)} events take {len(body)} bytes in `{spec.name}/{number}`; "
                    f"send at most {MAX_BATCH_BYTES} bytes at a time"
                )
            ids = (
                tuple(event.id or "" for event in chosen)
                if any(event.id for event in chosen)
                else None
            )
            appends.append(Append(spec.name, number, len(chosen), body, hops, origin, ids))
        return appends, list(groups.values())


def _check(spec: StreamSpec, index: int, event: Event) -> None:
    if len(event.value) > spec.max_event_bytes:
        raise TooLarge(
            f"event {index} holds {len(event.value)} bytes; `{spec.name}` takes at most "
            f"{spec.max_event_bytes} (its `max_event_bytes`)"
        )
    if event.key is not None and len(event.key) > MAX_KEY_BYTES:
        raise TooLarge(
            f"event {index} has a key of {len(event.key)} characters; at most {MAX_KEY_BYTES}"
        )
    if event.id is not None and not 0 < len(event.id) <= MAX_KEY_BYTES:
        raise Invalid(
            f"event {index} has an id of {len(event.id)} characters; use 1 to {MAX_KEY_BYTES}"
        )
    if event.headers:
        if len(event.headers) > MAX_HEADERS:
            raise TooLarge(f"event {index} has {len(event.headers)} headers; at most {MAX_HEADERS}")
        if sum(len(k) + len(v) for k, v in event.headers.items()) > MAX_HEADER_BYTES:
            raise TooLarge(f"the headers of event {index} take more than {MAX_HEADER_BYTES} bytes")
    if spec.cleanup == "compact" and event.key is None:
        raise Misuse(
            f"event {index} has no key, and `{spec.name}` keeps the last event of each key"
        )


def _report(
    events: Sequence[Event],
    appends: Sequence[Append],
    order: Sequence[Sequence[int]],
    firsts: Sequence[Position | None],
    duplicates: int,
) -> Published:
    places: list[Position | None] = [None] * len(events)
    if not duplicates:
        for append, indices, first in zip(appends, order, firsts, strict=True):
            if first is not None:
                for step, index in enumerate(indices):
                    places[index] = Position(append.stream, append.partition, first.offset + step)
    else:
        # The log knows how many it dropped, not which; the first survivor's position is certain.
        for indices, first in zip(order, firsts, strict=True):
            if first is not None:
                places[indices[0]] = first
    return Published(places, duplicates)
