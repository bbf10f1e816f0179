"""Consumer groups and readers of a log that is kept in this process: one node, so it owns all.

Comes in: a ledger and a way to fetch what is not on a partition's chunk list. A subscription says once
that every partition is ours, then waits until it is closed; a reader wakes on an append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headrace.model.errors import Misuse, Unavailable
from headrace.model.record import Chunk
from headrace.storage.log.base import Assigned, Revoked
from headrace.storage.log.log_state import LogState, Partition

Fetch = Callable[[Partition, int, int, int], list[Chunk]]


class LocalReader:
    """Reads one partition forward. Used by one task."""

    def __init__(self, partition: Partition, offset: int, fetch: Fetch) -> None:
        self._partition = partition
        self._fetch = fetch
        self._offset = max(offset, 0)
        self._closed = False

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        return self._closed

    @property
    def position(self) -> int:
        """The offset `read` goes on from."""
        return self._offset

    def seek(self, offset: int) -> None:
        """Go on from `offset`; below the lowest kept it means the lowest kept."""
        self._offset = max(offset, self._partition.low)

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        """The next chunks, in order; see the port."""
        if self._closed:
            raise Unavailable(
                f"the reader of `{self._partition.stream}/{self._partition.number}` is closed"
            )
        # Retention may have removed what would come next: reading goes on at the lowest that is
        # kept.
        self._offset = max(self._offset, self._partition.low)
        if self._offset >= self._partition.high:
            return []
        chunks = self._fetch(self._partition, self._offset, events, size)
        if chunks:
            self._offset = chunks[-1].end
        elif events > 0:
            # Only a gap that compaction left can lie here.
            self._offset = self._partition.high
        return chunks

    def watch(self, waiter: asyncio.Future[None]) -> None:
        """Set it once there is more, or once the reader is closed."""
        if not self._closed and self._offset >= self._partition.high:
            self._partition.waiters[self] = waiter
        # There is something already: an append between `read` and `watch` would otherwise go
        # unnoticed.
        elif not waiter.done():
            waiter.set_result(None)

    def close(self) -> None:
        """Forget the partition, and let a waiting task go."""
        self._closed = True
        # All readers of the partition wake, and find nothing; a close is too rare to look for the
        # one.
        self._partition.wake()


class LocalSubscription:
    """This node's share of a group, which is everything."""

    def __init__(
        self, ledger: LogState, group: str, streams: tuple[str, ...], fetch: Fetch
    ) -> None:
        """Join.

        Raises:
            Misuse: The streams are not co-partitioned.
            Unknown: One of them does not exist.
        """
        counts = {name: len(ledger.stream(name).partitions) for name in streams}
        if len(set(counts.values())) != 1:
            counted = ", ".join(f"`{name}` has {count}" for name, count in counts.items())
            raise Misuse(
                f"`{group}` cannot read {counted or 'no streams'}: streams that are read together "
                "need equal numbers of partitions; declare them so, or copy one"
            )
        self._ledger = ledger
        self._fetch = fetch
        self.group = group
        self._streams = streams
        self._count = next(iter(counts.values()))
        self._assigned = False
        self._closed = asyncio.Event()
        self._readers: list[LocalReader] = []

    @property
    def closed(self) -> bool:
        """True once the group has been left."""
        return self._closed.is_set()

    async def read(self) -> Assigned | Revoked:
        """Everything is ours, once; then nothing until the group is left."""
        if not self._assigned:
            self._assigned = True
            return Assigned(tuple(range(self._count)))
        # The port has no end: a closed subscription raises, as one whose log is away.
        await self._closed.wait()
        raise Unavailable(f"the subscription of `{self.group}` is closed")

    def reader(self, stream: str, partition: int, offset: int) -> LocalReader:
        """Read an assigned partition from `offset`."""
        if stream not in self._streams:
            raise Misuse(f"`{self.group}` does not read `{stream}`; subscribe to it first")
        reader = LocalReader(self._ledger.partition(stream, partition), offset, self._fetch)
        # Closed ones are dropped here, else a subscription that is read for months would keep them
        # all.
        self._readers = [each for each in self._readers if not each.closed]
        self._readers.append(reader)
        return reader

    async def commit(self, progress: dict[tuple[str, int], int]) -> None:
        """Do nothing: positions are in the same store."""

    async def released(self, partitions: Sequence[int]) -> None:
        """Do nothing: partitions are never revoked here."""

    async def close(self) -> None:
        """Leave the group; its readers end."""
        self._closed.set()
        for reader in self._readers:
            reader.close()
        self._readers.clear()
