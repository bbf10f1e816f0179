"""Streams, partitions and their next offsets, and appends that are not committed yet.

Comes in: appends, change by change. Goes out: chunks with offsets, without gaps per partition and
without the events whose id was seen within the stream's dedupe window. What is staged becomes
visible when it has landed and is forgotten when it has not. Shared by the drivers; it knows no
disk. Refuses oversize and malformed bodies before anything of their change is staged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headrace.environment.clock import Clock
from headrace.model.function import StreamSpec
from headrace.model.record import Append, Chunk, Position
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import Look
from headrace.storage.log.append_checks import (
    check_append,
    join_bodies,
    mergeable,
    without_known,
)
from headrace.storage.log.catalog import unknown_partition, unknown_stream
from headrace.storage.log.chunk_list import ChunkList
from headrace.storage.log.delayed_messages import WaitingMessages

MERGED_EVENTS = 1_000
MERGED_BYTES = 64 << 10


class Partition:
    """One partition: its chunks, and the futures of readers that wait for more."""

    __slots__ = (
        "appended",
        "chunk_list",
        "high",
        "low",
        "number",
        "size",
        "staged_high",
        "stream",
        "uid",
        "waiters",
    )

    def __init__(self, uid: int, stream: str, number: int) -> None:
        self.uid = uid
        self.stream = stream
        self.number = number
        self.low = 0
        self.high = 0
        # Not the same as `high`: readers must not see offsets of a transaction that may still be rolled
        # back.
        self.staged_high = 0
        self.size = 0
        self.appended = 0
        self.chunk_list = ChunkList()
        self.waiters: dict[object, asyncio.Future[None]] = {}
        """By reader, so that each has one entry at most."""

    def wake(self) -> None:
        """Let those who wait look again."""
        if self.waiters:
            for waiter in self.waiters.values():
                # The waiting task may have set or cancelled its future meanwhile.
                if not waiter.done():
                    waiter.set_result(None)
            self.waiters.clear()


class LogStream:
    """One stream: its description and partitions."""

    __slots__ = ("partitions", "spec", "uid")

    def __init__(self, uid: int, spec: StreamSpec, partitions: list[Partition]) -> None:
        self.uid = uid
        self.spec = spec
        self.partitions = partitions


class _Blob:
    """A stored blob in the making; small appends of one group share one."""

    __slots__ = ("appended", "bodies", "count", "first", "hops", "origin", "partition", "size")

    def __init__(self, partition: Partition, append: Append, appended: int) -> None:
        self.partition = partition
        self.first = partition.staged_high
        self.count = append.count
        self.bodies = [append.body]
        self.size = len(append.body)
        self.hops = append.hops
        self.origin = append.origin
        self.appended = appended

    def takes(self, append: Append) -> bool:
        return (
            # A blob has one hop count and one origin, so only appends that agree in both share it.
            self.hops == append.hops
            and self.origin == append.origin
            and self.count + append.count <= MERGED_EVENTS
            and self.size + len(append.body) <= MERGED_BYTES
        )

    def chunk(self) -> Chunk:
        body = self.bodies[0] if len(self.bodies) == 1 else join_bodies(self.bodies, self.count)
        return Chunk(
            self.partition.stream,
            self.partition.number,
            self.first,
            self.count,
            body,
            self.appended,
            0,
            self.count,
            self.hops,
            self.origin,
        )


Seen = Callable[[int, Sequence[str], int], set[str]]


class LogState:
    """The state of a log that is kept in this process. Owned by a broker."""

    def __init__(self, clock: Clock, seen: Seen) -> None:
        """Begin without streams.

        Args:
            clock: The source of time.
            seen: Which of these ids a stream (by uid) holds unexpired at a time (µs).
        """
        self._clock = clock
        self._seen = seen
        self.streams: dict[str, LogStream] = {}
        self._blobs: list[_Blob] = []
        self._open: dict[int, _Blob] = {}
        self._chunks: list[tuple[Partition, Chunk]] = []
        self.marks: dict[tuple[int, str], int] = {}

    def stream(self, name: str) -> LogStream:
        """The stream.

        Raises:
            Unknown: There is none of that name.
        """
        found = self.streams.get(name)
        if found is None:
            raise unknown_stream(name, self.streams)
        return found

    def partition(self, name: str, number: int) -> Partition:
        """The partition.

        Raises:
            Unknown: There is no such stream or partition.
        """
        partitions = self.stream(name).partitions
        if not 0 <= number < len(partitions):
            raise unknown_partition(name, number, len(partitions))
        return partitions[number]

    def stage(self, appends: Sequence[Append], look: Look) -> Applied:
        """Give one change's appends their offsets, or raise and leave no trace."""
        for append in appends:
            self.partition(append.stream, append.partition)
            check_append(append, self.streams[append.stream].spec)
        # One time for the whole change, so that its events have the same age.
        now = self._clock.now()
        positions: list[Position | None] = []
        waiting = WaitingMessages(look)
        cancelled: list[str] = []
        duplicates = later = 0
        # All checks have passed: nothing below may raise, or offsets would be given for a change
        # that does not land.
        for append in appends:
            stream = self.streams[append.stream]
            if append.kind == "cancel":
                positions.append(None)
                cancelled += self._taken_back(append, stream, waiting)
                continue
            kept = append
            if append.ids is not None and (stream.spec.dedupe_window > 0 or append.later):
                kept = self._without_duplicates(append, stream, now, waiting)
                duplicates += append.count - kept.count
            # Every event was a duplicate: the change lands, and its producer gets no position.
            if not kept.count:
                positions.append(None)
            elif append.later:
                positions.append(None)
                later += kept.count
                waiting.keep(kept, append.later)
            else:
                positions.append(self._place(kept, stream, now))
        return Applied(tuple(positions), duplicates, waiting.rows, later, tuple(cancelled))

    def _taken_back(self, append: Append, stream: LogStream, waiting: WaitingMessages) -> list[str]:
        """Cancel the append's messages; the ids of those that waited, which may be used again."""
        found = [id for id in append.ids or () if waiting.take_back(stream.spec.name, id)]
        if stream.spec.dedupe_window > 0:
            # A mark of 0 has expired: it overwrites the one on the disk, so the id is not taken
            # for a duplicate.
            self.marks.update(dict.fromkeys(((stream.uid, id) for id in found), 0))
        return found

    def _without_duplicates(
        self, append: Append, stream: LogStream, now: int, waiting: WaitingMessages
    ) -> Append:
        ids = append.ids or ()
        name, window = stream.spec.name, stream.spec.dedupe_window
        known: set[str] = set()
        if window > 0:
            # One that was taken back has the mark 0, and is as good as new.
            marked = {
                id: self.marks[stream.uid, id] for id in ids if (stream.uid, id) in self.marks
            }
            unmarked = [id for id in ids if id and id not in marked]
            # One query for all ids of the append: one for each would cost more than the append.
            known = self._seen(stream.uid, unmarked, now) if unmarked else known
            known = known.union(id for id, mark in marked.items() if mark > 0)
        if append.later:
            known = known.union(id for id in ids if id and waiting.holds(name, id))
        kept, fresh = without_known(append, known)
        if window > 0:
            self.marks.update(
                dict.fromkeys(((stream.uid, id) for id in fresh), now + int(window * 1_000_000))
            )
        return kept

    def _place(self, append: Append, stream: LogStream, now: int) -> Position:
        partition = stream.partitions[append.partition]
        first = partition.staged_high
        blob = self._open.get(partition.uid)
        if blob is not None and mergeable(append) and blob.takes(append):
            blob.bodies.append(append.body)
            blob.count += append.count
            blob.size += len(append.body)
        else:
            # The clock may go back; a partition's time does not.
            blob = _Blob(partition, append, max(now, partition.appended))
            self._blobs.append(blob)
            # Only the last blob of a partition stays open: offsets within it must have no gaps.
            if mergeable(append):
                self._open[partition.uid] = blob
            else:
                # A large append closes the one before it; joining later small ones to that would
                # reverse their order.
                self._open.pop(partition.uid, None)
        partition.staged_high = first + append.count
        return Position(append.stream, append.partition, first)

    def staged(self) -> list[tuple[Partition, Chunk]]:
        """The chunks that everything staged became."""
        # Called for writing and again for landing: the bodies are joined once.
        if len(self._chunks) != len(self._blobs):
            self._chunks = [(blob.partition, blob.chunk()) for blob in self._blobs]
        return self._chunks

    def landed(self) -> list[tuple[Partition, Chunk]]:
        """Show what was staged to readers and wake those who wait."""
        chunks = self.staged()
        for partition, chunk in chunks:
            partition.chunk_list.add(chunk)
            partition.size += len(chunk.body)
            partition.high = chunk.first + chunk.count
            partition.appended = chunk.appended
        # After all partitions are up to date: a waiter reads several of them when it runs.
        for partition, _ in chunks:
            partition.wake()
        self._forget()
        return chunks

    def dropped(self) -> None:
        """Forget what was staged."""
        for blob in self._blobs:
            # Offsets of a dropped change are given again: the log has no gaps but those of
            # compaction.
            blob.partition.staged_high = blob.partition.high
        self._forget()

    def _forget(self) -> None:
        self._blobs = []
        self._chunks = []
        self._open.clear()
        self.marks.clear()
