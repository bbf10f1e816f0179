"""Queues for operators: counts, peek, purge and redrive.

A queue is a stream; each reader (a function, or the programs outside together) gets every message
and is counted separately. An unfinished message of a reader is *in flight* or *waiting*; a message
that may not be received yet is *delayed*, for all readers.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from headrace.admin.dead_letters import DeadLetters
from headrace.admin.lag import LagReport
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import decode_position, position_key
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.model.effects import Progress, Space
from headrace.model.errors import Misuse, Unknown
from headrace.model.event import Event
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.record import Position, decode_events
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.base import Broker
from headrace.storage.log.queue_leases import Leases
from headrace.topology.external_consumers import consumer_name

MAX_DELAYED: Final = 10_000
"""The maximum count of delayed messages, of all queues together."""
MAX_COUNTED: Final = 1_000
"""The maximum count of dead and parked messages, since their rows hold whole messages."""
COUNT_PAGE: Final = 50
PAGE: Final = 500
MAX_LOOKED: Final = 10_000
"""Events that a peek reads at most, including finished ones."""


class ReaderRow(msgspec.Struct, frozen=True):
    """One reader of a queue.

    Attributes:
        group: A function, or the programs outside.
        outside: Whether it is the programs outside.
        waiting: Messages it may receive now, or that wait for their next attempt.
        in_flight: Messages that it is processing.
        dead: Messages that it gave up; counted up to 1,000.
        parked: Messages that wait behind a failure, or are being redriven; counted up to 1,000.
        oldest_age: Seconds since the oldest unfinished one was appended.
        state: As `LagRow`, of the first partition that is not running.
    """

    group: str
    outside: bool
    waiting: int
    in_flight: int
    dead: int
    parked: int
    oldest_age: float
    state: str


class QueueRow(msgspec.Struct, frozen=True):
    """One queue.

    Attributes:
        queue: The stream's name.
        owner: Its app.
        settings: Its queue settings.
        partitions: Its number of partitions.
        delayed: Messages that may not be received yet; counted up to 10,000 of all queues.
        readers: Its readers.
    """

    queue: str
    owner: str
    settings: QueueSpec
    partitions: int
    delayed: int
    readers: list[ReaderRow]


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message in its queue.

    Attributes:
        position: Its position; "" if it is delayed.
        state: `waiting`, `in flight` or `delayed`.
        receives: How often programs outside have received it; 0 for functions.
        until: When it may be received (again), in microseconds; 0 for now.
        appended: When it was appended, in microseconds; 0 if it is delayed.
    """

    position: str
    state: str
    receives: int
    until: int
    appended: int
    event: Event


class Purged(msgspec.Struct, frozen=True):
    """Numbers of messages that a purge marked as done: delayed ones, and those of each reader."""

    queue: str
    delayed: int
    readers: dict[str, int]


class Queues:
    """Reads and changes queues. Used by the HTTP server."""

    def __init__(
        self,
        supervisor: PartitionSupervisor,
        lag: LagReport,
        dead: DeadLetters,
        *,
        storage: Storage,
        broker: Broker,
        clock: Clock,
    ) -> None:
        self._supervisor = supervisor
        self._lag = lag
        self._dead = dead
        self._storage = storage
        self._broker = broker
        self._clock = clock
        self._leases = Leases(storage)

    async def rows(self) -> list[QueueRow]:
        """Return every queue of the deployed apps."""
        # Once for all queues: the rows of delayed messages are sorted by time, not by queue.
        delayed = await self._delayed()
        specs = [
            stream
            for app in self._supervisor.apps.values()
            for stream in app.streams
            if stream.queue
        ]
        slices = Slices(self._clock)
        return [
            await self._row(spec, delayed[spec.name])
            async for spec in slices.over(sorted(specs, key=lambda spec: spec.name))
        ]

    async def row(self, name: str) -> QueueRow:
        """Return one queue.

        Raises:
            Unknown: There is no such queue.
        """
        spec = self.spec(name)
        return await self._row(spec, (await self._delayed())[name])

    def spec(self, name: str) -> StreamSpec:
        """Return the queue's description.

        Raises:
            Unknown: There is no such stream, or it is not a queue.
        """
        spec = self._broker.stream(name)
        if spec.queue is None:
            raise Unknown(
                f'`{name}` is a stream, not a queue; declare it with `app.queue("{name}")`'
            )
        return spec

    def readers(self, name: str) -> list[str]:
        """Return the groups that read the queue."""
        return self._supervisor.readers(name)

    async def peek(
        self, name: str, group: str | None = None, *, limit: int = 10
    ) -> list[QueuedMessage]:
        """Return the first unfinished messages of a reader, then delayed ones, without receiving them.

        Raises:
            Unknown: There is no such queue, or no reader of that name.
            Misuse: It has several readers and none was named.
        """
        spec = self.spec(name)
        group = self._chosen(name, group)
        found: list[QueuedMessage] = []
        for partition in range(spec.partitions):
            found += await self._unfinished(group, name, partition, limit)
        # Partitions are read one after the other, and a peek shows the oldest messages of all.
        found.sort(key=lambda seen: seen.appended)
        found = found[:limit]
        if len(found) < limit:
            # Delayed messages only fill up the page: those that can be received come first.
            async for _, due, append in self._supervisor.delays.waiting(name):
                for event in decode_events(append.body):
                    found.append(QueuedMessage("", "delayed", 0, due, 0, event))
                if len(found) >= limit:
                    break
        return found[:limit]

    async def purge(self, name: str) -> Purged:
        """Mark every message as done, for every reader; return how many there were.

        Dead and parked messages stay: they are discarded by name. Messages that arrive meanwhile
        may stay too.
        """
        spec = self.spec(name)
        # Delayed ones first: one that becomes due during the purge is then in neither part.
        delayed = await self._supervisor.delays.forget(name)
        readers = {
            group: sum(
                [
                    await self._supervisor.empty(group, name, partition)
                    for partition in range(spec.partitions)
                ]
            )
            for group in self.readers(name)
        }
        return Purged(name, delayed, readers)

    async def redrive(self, name: str) -> int:
        """Deliver every dead message of the queue to its reader again."""
        self.spec(name)
        count = 0
        for group in self.readers(name):
            # Only those of this queue: a function may read other streams as well.
            places = await self._dead_of(group, name)
            count += await self._dead.redrive(group, places) if places else 0
        return count

    # --- parts --------------------------------------------------------------------------------

    def _chosen(self, name: str, group: str | None) -> str:
        known = self.readers(name)
        shown = ", ".join(f"`{each}`" for each in known) or "nobody"
        if group is None and len(known) == 1:
            return known[0]
        # A guess could show, or later redrive, the messages of the wrong reader.
        if group is None and known:
            raise Misuse(f"`{name}` is read by {shown}; name one with `group`")
        if group not in known:
            raise Unknown(f"`{group or name}` reads no messages of `{name}`; {shown} does")
        return group

    async def _row(self, spec: StreamSpec, delayed: int) -> QueueRow:
        readers = [await self._reader(group, spec) for group in self.readers(spec.name)]
        return QueueRow(
            spec.name, spec.owner, spec.queue or QueueSpec(), spec.partitions, delayed, readers
        )

    async def _reader(self, group: str, spec: StreamSpec) -> ReaderRow:
        rows = [row for row in await self._lag.rows(group) if row.stream == spec.name]
        outside = group == consumer_name(spec.owner, spec.name)
        unfinished = sum(row.lag for row in rows)
        # A message that is offered to programs outside is a run here, but still waits for them.
        in_flight = (
            self._supervisor.queues.counts(group)[1]
            if outside
            else sum(row.in_flight for row in rows)
        )
        return ReaderRow(
            group=group,
            outside=outside,
            # The two figures are read one after the other, so their difference may be negative.
            waiting=max(unfinished - in_flight, 0),
            in_flight=in_flight,
            dead=await self._count(Space.DEAD, pack(group, spec.name)),
            parked=await self._count(Space.PARKED, pack(group, spec.name)),
            oldest_age=max((row.oldest_age for row in rows), default=0.0),
            state=next((row.state for row in rows if row.state != "running"), "running"),
        )

    async def _unfinished(
        self, group: str, name: str, partition: int, limit: int
    ) -> list[QueuedMessage]:
        row = await self._storage.get(Space.POSITIONS, position_key(group, name, partition))
        extent = await self._broker.extent(name, partition)
        progress = Progress(extent.low) if row is None else decode_position(row).progress
        mark = Watermark(progress)
        at = max(progress.watermark, extent.low)
        last = at + MAX_LOOKED
        found: list[QueuedMessage] = []
        slices = Slices(self._clock)
        # Finished messages above the watermark are read as well, so the number of events read is
        # bounded too.
        while at < min(extent.high, last) and len(found) < limit:
            chunks = await self._broker.fetch(name, partition, at, events=PAGE, size=1 << 20)
            if not chunks:
                break
            for chunk in chunks:
                for index, event in enumerate(chunk.events(), start=chunk.low):
                    await slices.step()
                    offset = chunk.offset_of(index)
                    if not mark.is_finished(offset) and len(found) < limit:
                        place = Position(name, partition, offset)
                        found.append(await self._seen(group, place, event, chunk.appended))
                at = chunk.end
        return found

    async def _seen(self, group: str, at: Position, event: Event, appended: int) -> QueuedMessage:
        lease = await self._leases.get(group, at)
        # Looked at first: to the partition worker a message is in flight already while it is only
        # offered.
        if lease is not None:
            held = lease.stand == "leased" and lease.until > self._clock.now()
            state = "in flight" if held else "waiting"
            return QueuedMessage(
                str(at), state, lease.attempt, lease.until if held else 0, appended, event
            )
        worker = self._supervisor.worker(group, at.stream, at.partition)
        outside = group.endswith(".outside")
        runs = (
            worker is not None
            and not outside
            and any(
                chunk.stream == at.stream and chunk.start <= at.offset < chunk.end
                for unit in worker.in_flight
                for chunk in unit.chunks
            )
        )
        return QueuedMessage(str(at), "in flight" if runs else "waiting", 0, 0, appended, event)

    async def _delayed(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        slices = Slices(self._clock)
        async for _, _, append in self._supervisor.delays.waiting():
            await slices.step()
            counts[append.stream] += append.count
            # The rows are decoded to be counted, so the count is bounded.
            if counts.total() >= MAX_DELAYED:
                break
        return counts

    async def _count(self, space: Space, prefix: bytes) -> int:
        count, slices = 0, Slices(self._clock)
        pages = scan_pages(self._storage, space, prefix, after(prefix), limit=COUNT_PAGE)
        async for page in pages:
            count += len(page)
            if count >= MAX_COUNTED:
                break
            await slices.step()
        return count

    async def _dead_of(self, group: str, name: str) -> list[Position]:
        found: list[Position] = []
        prefix = pack(group, name)
        async for page in scan_pages(
            self._storage, Space.DEAD, prefix, after(prefix), limit=COUNT_PAGE
        ):
            for key, _ in page:
                # Partition and offset are the rest of the key, so no row has to be decoded.
                place = key[len(prefix) :]
                found.append(
                    Position(
                        name, int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big")
                    )
                )
        return found
