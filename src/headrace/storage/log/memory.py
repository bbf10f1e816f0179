"""The log in memory, alone and within the storage in memory: for tests and simulation.

The latter keeps its data in the storage's `log_contents`, so that a new broker over the same storage finds
it again as after a crash. Never suspends unless the storage's faults do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from headrace.environment.clock import Clock
from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.function import StreamSpec
from headrace.model.record import Append, Chunk
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import Look
from headrace.storage.kv.log_appends import Statement
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.base import Extent, Owed, nothing_owed
from headrace.storage.log.catalog import check_spec, redeclare
from headrace.storage.log.compaction import compact
from headrace.storage.log.log_state import LogState, LogStream, Partition
from headrace.storage.log.subscriptions import LocalSubscription

SWEEP_SECONDS = 30.0
TOMBSTONE_MICROS = 86_400_000_000


@dataclass
class MemoryStreams:
    """The data that outlives a log in memory: the streams with their records, and the ids seen."""

    streams: dict[str, LogStream] = field(default_factory=dict)
    marks: dict[tuple[int, str], int] = field(default_factory=dict)


class MemoryLog:
    """A log in memory, however its events come in: streams, readers and housekeeping."""

    def __init__(
        self,
        kept: MemoryStreams,
        *,
        clock: Clock,
        tasks: Tasks | None = None,
        sweep: float = SWEEP_SECONDS,
    ) -> None:
        """Open what was kept.

        Args:
            kept: The log itself.
            clock: The source of time.
            tasks: The group the housekeeping runs in; None: the caller runs `sweep`.
            sweep: Seconds between sweeps.
        """
        self._clock = clock
        self._kept = kept
        self._ledger = LogState(clock, self._seen)
        self._ledger.streams = kept.streams
        for partition in self._partitions():
            # What the crashed log had staged never landed, and its readers' futures belong to a
            # loop step that is gone.
            partition.staged_high = partition.high
            partition.waiters = {}
        self._subscriptions: list[LocalSubscription] = []
        self._closed = False
        self._owed: Owed = nothing_owed
        self._sweeper = (
            None
            if tasks is None
            else tasks.supervise(
                partial(self._keep_house, sweep), name="log-housekeeping", backoff=Backoff(clock)
            )
        )

    def _partitions(self) -> list[Partition]:
        return [each for stream in self._kept.streams.values() for each in stream.partitions]

    def _seen(self, stream: int, ids: Sequence[str], now: int) -> set[str]:
        return {each for each in ids if self._kept.marks.get((stream, each), 0) > now}

    async def declare(self, spec: StreamSpec) -> StreamSpec:
        """Create the stream, or bring its changeable settings up to `spec`; see the port."""
        check_spec(spec)
        known = self._kept.streams.get(spec.name)
        if known is not None:
            known.spec = redeclare(known.spec, spec)
            return known.spec
        first = 1 + max((each.uid for each in self._partitions()), default=0)
        self._kept.streams[spec.name] = LogStream(
            len(self._kept.streams) + 1,
            spec,
            [Partition(first + each, spec.name, each) for each in range(spec.partitions)],
        )
        return spec

    def stream(self, name: str) -> StreamSpec:
        """The stream's description; see the port."""
        return self._ledger.stream(name).spec

    def streams(self) -> list[StreamSpec]:
        """Every stream, by name."""
        return [self._kept.streams[name].spec for name in sorted(self._kept.streams)]

    async def extent(self, stream: str, partition: int) -> Extent:
        """Return the offsets that the partition holds now."""
        found = self._ledger.partition(stream, partition)
        return Extent(found.low, found.high, found.size)

    async def offset_at(self, stream: str, partition: int, time: int) -> int:
        """The first offset appended at or after `time`; see the port."""
        found = self._ledger.partition(stream, partition)
        chunks = found.chunk_list.chunks
        index = bisect_left(chunks, time, key=lambda chunk: chunk.appended)
        return chunks[index].start if index < len(chunks) else found.high

    async def fetch(
        self, stream: str, partition: int, offset: int, *, events: int, size: int
    ) -> list[Chunk]:
        """Browse, without being a consumer."""
        found = self._ledger.partition(stream, partition)
        return self._read(found, max(offset, found.low), events, size)

    async def trim(self, stream: str, partition: int, *, below: int, before: int) -> None:
        """Remove what is below `below` and older than `before`; see the port."""
        found = self._ledger.partition(stream, partition)
        gone = [
            chunk
            for chunk in found.chunk_list.chunks
            if chunk.end <= below and chunk.appended < before
        ]
        _drop(found, len(gone))

    def _read(self, partition: Partition, offset: int, events: int, size: int) -> list[Chunk]:
        return partition.chunk_list.read(offset, events=events, size=size)

    def subscribe(self, group: str, streams: tuple[str, ...]) -> LocalSubscription:
        """Join `group`; see the port."""
        subscription = LocalSubscription(self._ledger, group, streams, self._read)
        self._subscriptions = [each for each in self._subscriptions if not each.closed]
        self._subscriptions.append(subscription)
        return subscription

    def hold(self, owed: Owed) -> None:
        """Ask this before anything is removed; see the port."""
        self._owed = owed

    async def sweep(self) -> None:
        """Apply retention to all that no failed reader is owed, and remove expired ids."""
        now, owed = self._clock.now(), await self._owed()
        for stream in self._kept.streams.values():
            # None: it is not known yet what failed readers are owed, so nothing is removed this
            # time.
            if owed is not None and stream.spec.cleanup == "delete":
                for partition in stream.partitions:
                    below = owed.get((stream.spec.name, partition.number), partition.high)
                    _retain(partition, stream.spec, now, below)
        # A list first: a dictionary must not change while it is iterated.
        for mark in [mark for mark, expires in self._kept.marks.items() if expires < now]:
            del self._kept.marks[mark]

    async def compact(self, stream: str) -> None:
        """Compact the stream now."""
        until = self._clock.now() - TOMBSTONE_MICROS
        if (owed := await self._owed()) is None:
            return
        for partition in self._ledger.stream(stream).partitions:
            below = owed.get((stream, partition.number), partition.high)
            chunks = partition.chunk_list.chunks
            held = [chunk for chunk in chunks if chunk.end > below]
            passed = [chunk for chunk in chunks if chunk.end <= below]
            left = compact(passed, tombstones_until=until) + held
            partition.chunk_list.replace(left)
            partition.size = sum(len(chunk.body) for chunk in left)
            partition.low = left[0].first if left else partition.high

    async def _keep_house(self, every: float) -> None:
        while True:
            await self._clock.sleep(every)
            await self.sweep()

    async def close(self) -> None:
        """Stop readers and housekeeping."""
        self._closed = True
        if self._sweeper is not None:
            await self._sweeper.stop()
        for subscription in self._subscriptions:
            await subscription.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the log in memory is closed")


class MemoryBroker(MemoryLog):
    """The log within the storage in memory. Attached to it; one at a time."""

    def __init__(
        self,
        storage: MemoryStorage,
        *,
        clock: Clock,
        tasks: Tasks | None = None,
        sweep: float = SWEEP_SECONDS,
    ) -> None:
        """Open the log in `storage`, which is not closed by this; else as `MemoryLog`."""
        kept = storage.log_contents.setdefault("log", MemoryStreams())
        if not isinstance(kept, MemoryStreams):
            raise TypeError("`log_contents` of this storage holds another kind of log")
        super().__init__(kept, clock=clock, tasks=tasks, sweep=sweep)
        self._storage = storage
        storage.attach(self)

    def stage(self, appends: Sequence[Append], look: Look) -> Applied:
        """Give the events of one change their offsets."""
        self._require_open()
        return self._ledger.stage(appends, look)

    def flush(self) -> list[Statement]:
        """Nothing to write: landing is enough."""
        return []

    def landed(self) -> None:
        """Show what was staged to readers."""
        self._kept.marks.update(self._ledger.marks)
        self._ledger.landed()

    def dropped(self) -> None:
        """Forget what was staged."""
        self._ledger.dropped()

    async def close(self) -> None:
        """Stop readers and housekeeping, and leave the store."""
        await super().close()
        self._storage.detach()


def _retain(partition: Partition, spec: StreamSpec, now: int, below: int) -> None:
    gone, size = 0, partition.size
    oldest = None if spec.retention_age is None else now - int(spec.retention_age * 1_000_000)
    for chunk in partition.chunk_list.chunks:
        left = size - len(chunk.body)
        expired = oldest is not None and chunk.appended < oldest
        surplus = spec.retention_bytes is not None and left >= spec.retention_bytes
        # Oldest first, and stop at the first to keep: a log has no holes but those of compaction.
        if chunk.end > below or not (expired or surplus):
            break
        gone, size = gone + 1, left
    _drop(partition, gone)


def _drop(partition: Partition, gone: int) -> None:
    partition.size -= sum(len(chunk.body) for chunk in partition.chunk_list.chunks[:gone])
    partition.chunk_list.drop_first(gone)
    partition.low = (
        partition.chunk_list.firsts[0] if partition.chunk_list.firsts else partition.high
    )
