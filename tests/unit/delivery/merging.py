"""Streams that are merged, committed, crashed upon and merged again, by hand and on the real book."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from tests.unit.delivery.making import chunk

from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order_store import MergeOrderStore, forget_order
from headrace.delivery.partition.watermark import Watermark
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Delete, Progress, Put
from headrace.model.record import Chunk
from headrace.storage.kv.memory import MemoryStorage

T = TypeVar("T")
Place = tuple[int, int]
"""A stream's number and an offset."""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a look at the store in memory, which never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it suspended")


class Logs:
    """What has been appended so far: the events' times, by stream. `lows` is where each begins."""

    def __init__(self, streams: int) -> None:
        self.times: list[list[int]] = [[] for _ in range(streams)]
        self.lows = [0] * streams
        self.names = [f"s{number}" for number in range(streams)]

    def read(self, stream: int, offset: int, most: int) -> list[Chunk]:
        low = max(offset, self.lows[stream])
        times = self.times[stream][low : low + most]
        return [chunk(len(times), low, stream=self.names[stream], times=times)] if times else []


class Group:
    """One consumer of the logs, through as many lives as it takes.

    `order` is what was handed out and can be undone no more, since something was committed after
    it; `handed` is everything that this life has handed out.
    """

    def __init__(
        self, logs: Logs, *, batch: int = 3, lateness: float = 1.0, name: str = "g"
    ) -> None:
        self.logs = logs
        self.now = 0.0
        self.name = name
        self.storage = MemoryStorage(SystemClock())
        self.order: list[Place] = []
        self._batch = batch
        self._lateness = lateness
        self._committed = [Progress(0) for _ in logs.times]
        self.live()

    def live(self) -> None:
        """A life begins, at what was committed."""
        names = self.logs.names
        self.marks = [Watermark(progress) for progress in self._committed]
        self.book = MergeOrderStore(
            self.storage, self._low, function=self.name, streams=names, partition=0
        )
        self.merge = Merge(
            len(names), events=self._batch, size=1 << 30, window=0.0, lateness=self._lateness
        )
        self.book.follow(self.merge)
        lows = {name: mark.low for name, mark in zip(names, self.marks, strict=True)}
        at_once(self.book.resume(lows))
        self._cursors = list(lows.values())
        self.handed: list[Place] = []
        self.open: list[Place] = []
        self._due = [each for each in self.order if not self.is_finished(each)]

    async def _low(self, stream: str) -> int:
        return self.logs.lows[self.logs.names.index(stream)]

    def is_finished(self, at: Place) -> bool:
        return self.marks[at[0]].is_finished(at[1])

    def look(self, most: int = 4) -> list[Place]:
        """Read what there is and take a batch, as a worker does; nothing where something is open."""
        if self.open:
            return []
        for stream in self.merge.wanting():
            if chunks := self.logs.read(stream, self._cursors[stream], most):
                end = chunks[-1].end
                self.marks[stream].skip(self._cursors[stream], chunks[0].start)
                self._cursors[stream] = end
                self.merge.add(stream, _without(chunks, self.marks[stream]), self.now)
        if self.merge.wait(self.now) != 0.0:
            return []
        taken = [
            (self.logs.names.index(one.stream), one.offset_of(index))
            for one in self.merge.take(self.now)
            for index in range(one.low, one.high)
        ]
        self.handed += taken
        self.open = taken
        # What was handed out for good is handed out again in the same order, and first.
        again = len(self._due)
        assert self.handed[:again] == self._due[: len(self.handed)]
        return taken

    def commit(self, finished: Sequence[Place]) -> None:
        """Let these events, and what is remembered with them, land."""
        for stream, offset in finished:
            self.marks[stream].finish(offset)
            self.open.remove((stream, offset))
        progress = {
            (name, 0): mark.progress()
            for name, mark in zip(self.logs.names, self.marks, strict=True)
        }
        rows = self.book.rows(progress)
        self.land(rows)
        self._committed = list(progress.values())
        known = set(self.order)
        self.order += [each for each in self.handed if each not in known]

    def land(self, rows: Sequence[Put | Delete]) -> None:
        puts = tuple(row for row in rows if isinstance(row, Put))
        deletes = tuple(row for row in rows if isinstance(row, Delete))
        at_once(self.storage.apply(Change(puts=puts, deletes=deletes)))

    def reset(self) -> list[Place]:
        """Back to the beginning; what had been handed out until now."""
        before, self.order = self.order, []
        self._committed = [Progress(0) for _ in self.logs.times]
        at_once(self.storage.apply(Change(deletes=forget_order(self.name, self.logs.names, 0))))
        self.live()
        return before

    def finish(self) -> None:
        """Go on until nothing is left, however long that takes."""
        quiet = 0
        while quiet < 3:
            if self.look() or self.open:
                quiet = 0
                self.commit(list(self.open))
            else:
                quiet += 1
                self.now += self._lateness + 1.0


def _without(chunks: list[Chunk], mark: Watermark) -> list[Chunk]:
    return [
        chunk.window(index, index + 1)
        for chunk in chunks
        for index in range(chunk.low, chunk.high)
        if not mark.is_finished(chunk.offset_of(index))
    ]
