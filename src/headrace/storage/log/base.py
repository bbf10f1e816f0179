"""The broker port: streams of events in partitions, read by consumer groups.

Brokers call no other component. Assignments and revocations are items that `Subscription.read` returns, so the
program runs at its own pace; a partition's records come from its `Reader`. How far a group has come
is kept by `delivery/positions` in the storage, for every driver; a foreign log gets it last
(ADR 0008). Events come in with changes of the storage: directly where the log is kept in it, through
`storage/outbox` where it keeps its own disk (ADR 0044). Obeyed by `tests/contract/test_brokers.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from headrace.model.function import StreamSpec
from headrace.model.record import Append, Chunk


class Extent(msgspec.Struct, frozen=True, gc=False):
    """The offsets a partition holds: `[low, high)`; `bytes` is an estimate of its size."""

    low: int
    high: int
    bytes: int = 0


class Assigned(msgspec.Struct, frozen=True, gc=False):
    """These partitions (by number, of every stream of the subscription) are ours from now on."""

    partitions: tuple[int, ...]


class Revoked(msgspec.Struct, frozen=True, gc=False):
    """These partitions are to be let go; `Subscription.released` says when that is done.

    `lost` means they are gone already: nothing may be committed for them any more.
    """

    partitions: tuple[int, ...]
    lost: bool = False


Owed: TypeAlias = Callable[[], Awaitable[Mapping[tuple[str, int], int] | None]]
"""By stream and partition, the offset from which on a reader that has failed is owed what it reads.

Without an entry, no reader of the partition has failed; None as a whole: not known yet.
"""


async def nothing_owed() -> Mapping[tuple[str, int], int]:
    """No reader has failed."""
    return {}


class Reader(Protocol):
    """Reads one partition of one stream forward. Used by one task."""

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        """The next chunks, in order, up to `events` events and about `size` bytes; maybe none.

        Never waits for new records; at least one event is returned where there is one.

        Raises:
            Corrupt: A stored record does not match its checksum.
            Unavailable: The log cannot be reached now.
        """
        ...

    # A future instead of an awaitable read: a worker waits for several readers, timers and results
    # at once, and needs no task for each.
    def watch(self, waiter: asyncio.Future[None]) -> None:
        """Set `waiter` once `read` may have something (at once where it has); may set it early.

        It takes the place of the one before it, which need not be set any more.
        """
        ...

    def seek(self, offset: int) -> None:
        """Go on from `offset`; below the lowest kept it means the lowest kept."""
        ...

    @property
    def position(self) -> int:
        """The offset `read` goes on from."""
        ...

    def close(self) -> None:
        """Forget the partition; safe to call twice."""
        ...


class Subscription(Protocol):
    """A node's share of a consumer group over co-partitioned streams."""

    async def read(self) -> Assigned | Revoked:
        """Wait for the next change of what this node owns."""
        ...

    def reader(self, stream: str, partition: int, offset: int) -> Reader:
        """Read an assigned partition from `offset`."""
        ...

    async def commit(self, progress: dict[tuple[str, int], int]) -> None:
        """Report the group's offsets to a foreign log (for its tools); the embedded log ignores it."""
        ...

    async def released(self, partitions: Sequence[int]) -> None:
        """These revoked partitions are let go of."""
        ...

    async def close(self) -> None:
        """Leave the group."""
        ...


class Broker(Protocol):
    """A log of streams. One per node. What is appended comes with changes of the storage."""

    async def declare(self, spec: StreamSpec) -> StreamSpec:
        """Create the stream, or bring its changeable settings up to `spec`.

        Raises:
            Misuse: It exists with another number of partitions, another owner or cleanup.
        """
        ...

    def stream(self, name: str) -> StreamSpec:
        """The stream's description.

        Raises:
            Unknown: There is no such stream; the message lists near names.
        """
        ...

    def streams(self) -> list[StreamSpec]:
        """Every stream, by name."""
        ...

    async def extent(self, stream: str, partition: int) -> Extent:
        """Return the offsets that the partition holds now."""
        ...

    async def offset_at(self, stream: str, partition: int, time: int) -> int:
        """The first offset appended at or after `time` (µs since the epoch); the end where none."""
        ...

    async def fetch(
        self, stream: str, partition: int, offset: int, *, events: int, size: int
    ) -> list[Chunk]:
        """Browse: as `Reader.read`, without being a consumer."""
        ...

    # By offset and by age: neither alone says that a record is both consumed and old enough.
    async def trim(self, stream: str, partition: int, *, below: int, before: int) -> None:
        """Remove what stands below the offset `below` and was appended before `before` (µs).

        Some of it may stay, where it shares a row with what does not go.

        Raises:
            Unknown: The stream or partition does not exist.
            DiskFull, Overloaded, Unavailable: As `Storage.apply`.
        """
        ...

    def hold(self, owed: Owed) -> None:
        """Ask this before retention or compaction removes anything: what is owed stays."""
        ...

    def subscribe(self, group: str, streams: tuple[str, ...]) -> Subscription:
        """Join `group`, reading `streams`, which have equal numbers of partitions.

        Raises:
            Misuse: The streams are not co-partitioned.
            Unknown: A stream does not exist.
        """
        ...

    async def close(self) -> None:
        """Stop readers and housekeeping."""
        ...


class LogWriter(Protocol):
    """A numbered sequence of appends on its way into a log that keeps its own disk."""

    async def publish(self, appends: Sequence[tuple[int, Append]]) -> None:
        """Append all of it and remember the last number, together or not at all.

        What the log remembers to have taken is passed over, so a repetition leaves nothing twice.

        Args:
            appends: At least one, by number, ascending.

        Raises:
            Fenced: The writer was opened again, by another node.
            Unavailable: Whether the log has taken them is unknown; open the writer again.
        """
        ...


class RemoteLog(Broker, Protocol):
    """A log that keeps its own disk, so what it takes comes from `storage/outbox`."""

    async def open_writer(self, id: int) -> LogWriter:
        """Continue as this writer, and fence off its former holder.

        Raises:
            Unavailable: The log is away.
        """
        ...
