"""The embedded log: streams in the same SQLite file as the state, in the same transactions.

Comes in: appends, alone or within a change. Goes out: chunks, from memory to readers that keep up,
from the table to those that do not. One row a blob, offsets without gaps, no index but the table's
own order. Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from headrace.environment.clock import Clock
from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.model.errors import Corrupt, Unavailable
from headrace.model.function import StreamSpec
from headrace.model.record import Append, Chunk
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import Look
from headrace.storage.kv.log_appends import Statement
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.base import Extent, Owed, nothing_owed
from headrace.storage.log.catalog import check_spec, redeclare
from headrace.storage.log.embedded import reader, streams
from headrace.storage.log.embedded.chunk_rows import encode_row
from headrace.storage.log.embedded.compaction import Compactor
from headrace.storage.log.embedded.dedupe import SeenIds
from headrace.storage.log.embedded.retention import retain, trim
from headrace.storage.log.embedded.statements import SQL
from headrace.storage.log.embedded.tail_cache import TailCache
from headrace.storage.log.log_state import LogState, LogStream, Partition
from headrace.storage.log.subscriptions import LocalSubscription

SWEEP_SECONDS = 30.0

_log = logging.getLogger(__name__)


class EmbeddedBroker:
    """The log of a node that keeps its own. Owned by the node; attached to its storage."""

    def __init__(
        self, storage: SqliteStorage, *, clock: Clock, tasks: Tasks, sweep: float = SWEEP_SECONDS
    ) -> None:
        """Open the log in `storage`, and start its housekeeping.

        Args:
            storage: The store, which is not closed by this.
            clock: The source of time.
            tasks: The group the housekeeping runs in.
            sweep: Seconds between sweeps.
        """
        self._storage = storage
        self._clock = clock
        self._marks = SeenIds(storage)
        self._ledger = LogState(clock, self._marks.seen)
        self._ledger.streams.update(streams.load(storage))
        # Never reused: the number is part of every row's id.
        self._next_partition = 1 + max((each.uid for each in self._partitions()), default=0)
        self._tail = TailCache()
        # Two apps may declare a stream at once; without the lock both would choose the same number
        # before either has landed.
        self._declaring = asyncio.Lock()
        self._compactor = Compactor(storage)
        self._subscriptions: list[LocalSubscription] = []
        self._owed: Owed = nothing_owed
        storage.attach(self)
        self._sweeper = tasks.supervise(
            partial(self._run_sweeps, sweep), name="log-housekeeping", backoff=Backoff(clock)
        )

    def _partitions(self) -> list[Partition]:
        return [each for stream in self._ledger.streams.values() for each in stream.partitions]

    # Streams -------------------------------------------------------------------------------

    async def declare(self, spec: StreamSpec) -> StreamSpec:
        """Create the stream, or bring its changeable settings up to `spec`; see the port."""
        check_spec(spec)
        async with self._declaring:
            known = self._ledger.streams.get(spec.name)
            if known is not None:
                wanted = redeclare(known.spec, spec)
                if wanted != known.spec:
                    await self._storage.write(streams.change(known.uid, wanted))
                    # After the write: a setting that is not on the disk must not take effect, or
                    # it would be undone by a restart.
                    known.spec = wanted
                return wanted
            uid = 1 + max((each.uid for each in self._ledger.streams.values()), default=0)
            first = self._next_partition
            await self._storage.write(streams.creation(uid, first, spec))
            self._next_partition += spec.partitions
            self._ledger.streams[spec.name] = LogStream(
                uid,
                spec,
                [Partition(first + each, spec.name, each) for each in range(spec.partitions)],
            )
            return spec

    def stream(self, name: str) -> StreamSpec:
        """The stream's description; see the port."""
        return self._ledger.stream(name).spec

    def streams(self) -> list[StreamSpec]:
        """Every stream, by name."""
        return [self._ledger.streams[name].spec for name in sorted(self._ledger.streams)]

    # Appending: the storage's Appender -------------------------------------------------------

    def stage(self, appends: Sequence[Append], look: Look) -> Applied:
        """Give the events of one change their offsets."""
        return self._ledger.stage(appends, look)

    def flush(self) -> list[Statement]:
        """The rows that everything staged became."""
        rows = [encode_row(partition, chunk) for partition, chunk in self._ledger.staged()]
        return [(SQL["insert_chunk"], rows), *self._marks.statements(self._ledger.marks)]

    def landed(self) -> None:
        """Show what was staged to readers; the oldest chunks leave the tail."""
        self._tail.landed(self._ledger.landed())

    def dropped(self) -> None:
        """Forget what was staged."""
        self._ledger.dropped()

    # Reading -------------------------------------------------------------------------------

    async def extent(self, stream: str, partition: int) -> Extent:
        """Return the offsets that the partition holds now."""
        found = self._ledger.partition(stream, partition)
        return Extent(found.low, found.high, max(found.size, 0))

    async def offset_at(self, stream: str, partition: int, time: int) -> int:
        """The first offset appended at or after `time`; see the port."""
        return reader.offset_at(self._storage, self._ledger.partition(stream, partition), time)

    async def fetch(
        self, stream: str, partition: int, offset: int, *, events: int, size: int
    ) -> list[Chunk]:
        """Browse, without being a consumer."""
        found = self._ledger.partition(stream, partition)
        return self._read(found, max(offset, found.low), events, size)

    async def trim(self, stream: str, partition: int, *, below: int, before: int) -> None:
        """Remove what is below `below` and older than `before`; see the port."""
        found = self._ledger.partition(stream, partition)
        await trim(self._storage, found, below=below, before=before)

    def _read(self, partition: Partition, offset: int, events: int, size: int) -> list[Chunk]:
        return reader.read(self._storage, partition, offset, events=events, size=size)

    def subscribe(self, group: str, streams: tuple[str, ...]) -> LocalSubscription:
        """Join `group`; see the port."""
        subscription = LocalSubscription(self._ledger, group, streams, self._read)
        # Closed ones are dropped here, so that deployments over months leave no list of them.
        self._subscriptions = [each for each in self._subscriptions if not each.closed]
        self._subscriptions.append(subscription)
        return subscription

    # Housekeeping --------------------------------------------------------------------------

    def hold(self, owed: Owed) -> None:
        """Call `owed` before anything is removed; see the port."""
        self._owed = owed

    async def sweep(self) -> None:
        """Apply retention to all that no failed reader is owed, and remove expired ids."""
        now = self._clock.now()
        # None: it is not known yet what failed readers are owed, so nothing is removed this time.
        if (owed := await self._owed()) is not None:
            # A copy: a stream may be declared while a sweep waits for a commit.
            for stream in list(self._ledger.streams.values()):
                for partition in stream.partitions:
                    below = owed.get((stream.spec.name, partition.number), partition.high)
                    await retain(self._storage, partition, stream.spec, now=now, below=below)
                    if stream.spec.cleanup == "compact" and self._compactor.due(partition):
                        await self._compactor.compact(partition, now=now, below=below)
        await self._marks.sweep(now)

    async def compact(self, stream: str) -> None:
        """Compact the stream now, whether or not it is worth it."""
        if (owed := await self._owed()) is None:
            return
        for partition in self._ledger.stream(stream).partitions:
            below = owed.get((stream, partition.number), partition.high)
            await self._compactor.compact(partition, now=self._clock.now(), below=below)

    async def _run_sweeps(self, every: float) -> None:
        while True:
            await self._clock.sleep(every)
            try:
                await self.sweep()
            # One damaged partition must not end the housekeeping of all; the next sweep tries
            # again.
            except (Corrupt, Unavailable) as error:
                _log.warning("a sweep of the log was put off: %s", error)

    async def close(self) -> None:
        """Stop readers and housekeeping; the storage stays open."""
        await self._sweeper.stop()
        for subscription in self._subscriptions:
            await subscription.close()
        # After the sweeper has ended: its last writes still go through the store.
        self._storage.detach()
