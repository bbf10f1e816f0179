"""Publisher: checks events, chooses their partitions, and makes them durable together.

Oversize and malformed events are refused here, before anything is stored; accepted events are
acknowledged only after the fsync.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.delivery.commit.committer import Committer
from headrace.delivery.queues.delayed import DelayedMessages
from headrace.model.effects import Change
from headrace.model.errors import Invalid, Misuse, TooLarge
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.partitioner import partition_of
from headrace.model.policy import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_KEY_BYTES,
)
from headrace.model.record import Append, Position, encode_events
from headrace.storage.log.base import Broker


class PublishReceipt:
    """Positions of published events; computed on demand, since most producers never read them.

    Attributes:
        duplicates: How many were dropped, because their id is known.
        later: How many wait for their time, and have no position yet.
    """

    __slots__ = ("_appends", "_firsts", "_order", "duplicates", "later")

    def __init__(
        self,
        appends: Sequence[Append],
        order: Sequence[Sequence[int]],
        firsts: Sequence[Position | None],
        duplicates: int,
        *,
        later: int = 0,
    ) -> None:
        self._appends = appends
        self._order = order
        self._firsts = firsts
        self.duplicates = duplicates
        self.later = later

    @property
    def positions(self) -> list[Position | None]:
        """Return one position for each event, in order; None for a duplicate, and for a message that is due later.

        Also None if the log has its own storage, where accepted events arrive later. Of a chunk
        with duplicates only the position of the first new event is known.
        """
        places: list[Position | None] = [None] * sum(map(len, self._order))
        if self.duplicates:
            # The log returns the number of duplicates, not which they are.
            for indices, first in zip(self._order, self._firsts, strict=True):
                if first is not None:
                    places[indices[0]] = first
            return places
        for append, indices, first in zip(self._appends, self._order, self._firsts, strict=True):
            if first is not None:
                for step, index in enumerate(indices):
                    places[index] = Position(append.stream, append.partition, first.offset + step)
        return places


class Publisher:
    """Appends events to streams for producers outside functions."""

    def __init__(
        self, broker: Broker, committer: Committer, delays: DelayedMessages | None = None
    ) -> None:
        self._broker = broker
        self._committer = committer
        self._delays = delays
        self._turn = 0

    async def publish(
        self, stream: str, events: Sequence[Event], *, hops: int = 0, origin: str = ""
    ) -> PublishReceipt:
        """Make `events` durable on `stream`, all or none.

        Raises:
            Unknown: There is no such stream.
            Invalid: An event breaks a rule; the message names it by its index.
            TooLarge: An event, or all of them together, is larger than allowed.
            DiskFull, Overloaded, Unavailable: As `Committer.commit`.
        """
        spec = self._broker.stream(stream)
        appends, order = self._checked(spec, events, hops, origin)
        if spec.queue is not None and self._delays is not None:
            return await self._send(self._delays, spec, appends, order)
        # One change for all partitions: all events or none.
        applied = await self._committer.commit(Change(appends=tuple(appends)))
        return PublishReceipt(appends, order, applied.positions, applied.duplicates)

    async def cancel(self, queue: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Cancel messages that wait for their time; return the ids of those that did.

        Raises:
            Unknown: There is no such stream.
            Invalid: It is not a queue, or an id cannot be one.
            DiskFull, Overloaded, Unavailable: As `Committer.commit`.
        """
        if self._delays is None:
            return ()
        return await self._delays.cancel(queue, ids)

    def bound(
        self, stream: str, events: Sequence[Event], *, hops: int = 0, origin: str = ""
    ) -> list[Append]:
        """Return the appends of `events` to a stream that is not a queue, for the caller's own change.

        Raises:
            Unknown, Invalid, TooLarge: As `publish`.
        """
        return self._checked(self._broker.stream(stream), events, hops, origin)[0]

    def _checked(
        self, spec: StreamSpec, events: Sequence[Event], hops: int, origin: str
    ) -> tuple[list[Append], list[Sequence[int]]]:
        # Checks and encoding do not yield, so their number bounds the time on the loop.
        if len(events) > MAX_BATCH:
            raise TooLarge(
                f"{len(events)} events in one publish; send at most {MAX_BATCH} at a time"
            )
        # Two passes, as the first one is cheap and nearly always finds nothing.
        for index in _suspects(spec, events):
            _check(spec, index, events[index])
        return self._spread(spec, events, hops, origin)

    async def _send(
        self,
        delays: DelayedMessages,
        spec: StreamSpec,
        appends: list[Append],
        order: Sequence[Sequence[int]],
    ) -> PublishReceipt:
        """Append messages to a queue; those that wait have no position yet."""
        parts: list[Append] = []
        places: list[Sequence[int]] = []
        for append, indices in zip(appends, order, strict=True):
            for part, held in delays.appends.split(spec, append):
                parts.append(part)
                places.append([indices[index] for index in held])
        applied = await self._committer.commit(Change(appends=tuple(parts)))
        return PublishReceipt(
            parts, places, applied.positions, applied.duplicates, later=applied.later
        )

    def _spread(
        self, spec: StreamSpec, events: Sequence[Event], hops: int, origin: str
    ) -> tuple[list[Append], list[Sequence[int]]]:
        """Return the appends, and for each the indices of its events."""
        groups: Mapping[int, Sequence[int]]
        if spec.partitions == 1:
            groups = {0: range(len(events))} if events else {}
        else:
            groups = by_partition = dict[int, list[int]]()
            # Events without a key share a partition within one publish: split up, each part would
            # be a small batch.
            self._turn += 1
            for index, event in enumerate(events):
                number = (
                    partition_of(event.key, spec.partitions)
                    if event.key is not None
                    else self._turn % spec.partitions
                )
                by_partition.setdefault(number, []).append(index)
        appends = []
        for number, indices in groups.items():
            chosen = [events[index] for index in indices] if len(groups) > 1 else events
            body = encode_events(chosen)
            if len(body) > MAX_BATCH_BYTES:
                raise TooLarge(
                    f"{len(chosen)} events take {len(body)} bytes in `{spec.name}/{number}`; "
                    f"send at most {MAX_BATCH_BYTES} bytes at a time"
                )
            ids = [event.id or "" for event in chosen]
            # Without ids the log need not look for duplicates.
            known = tuple(ids) if any(ids) else None
            appends.append(Append(spec.name, number, len(chosen), body, hops, origin, known))
        return appends, list(groups.values())


def _suspects(spec: StreamSpec, events: Sequence[Event]) -> list[int]:
    """Return the events that need all checks: all but short ones with a short key and nothing else."""
    limit, needs_key = spec.max_event_bytes, spec.cleanup == "compact"
    return [
        index
        for index, event in enumerate(events)
        if event.headers
        or event.id is not None
        or len(event.value) > limit
        or (needs_key if event.key is None else len(event.key) > MAX_KEY_BYTES)
    ]


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
    # Compaction keeps the last event of each key: one without a key could never be replaced.
    if spec.cleanup == "compact" and event.key is None:
        raise Misuse(
            f"event {index} has no key, and `{spec.name}` keeps the last event of each key"
        )
