"""Closing of open windows by hand, for `headrace window flush`.

In: a window function, optionally one partition or key. Out: a request on the function's stream of closed windows, which the
function executes like any closing: nothing is closed here. The closed windows are read from the same stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import decode_position, position_key
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.time_slices import Slices
from headrace.model.effects import Change, Space
from headrace.model.errors import Misuse, Unknown
from headrace.model.record import Position
from headrace.model.triggers.base import StreamTrigger
from headrace.model.windows import FLUSH_HEADER, CloseRequest
from headrace.storage.log.base import Broker

MAX_LISTED: Final = 1_000
"""Windows that an answer lists; all are counted."""
FLUSH_TIMEOUT_S: Final = 20.0
LOOK_S: Final = 0.05
PAGE_EVENTS, PAGE_BYTES = 500, 4 << 20


class FlushedWindow(msgspec.Struct, frozen=True):
    """A window that was closed by hand.

    Attributes:
        key: The key of its events.
        start: Its start, inclusive.
        end: Its end, exclusive.
    """

    key: str | None
    start: datetime
    end: datetime


class Flushed(msgspec.Struct, frozen=True):
    """Result of a request.

    Attributes:
        closed: How many windows it closed, so far.
        windows: The first 1,000 of them.
        waiting: Partitions of the stream in which it is not executed yet; it will be.
        state: What the first of these waits for, in words; "" if there is none.
    """

    function: str
    closed: int
    windows: list[FlushedWindow]
    waiting: list[int]
    state: str = ""


class OpenWindows:
    """Closes windows by hand. One per node."""

    def __init__(
        self,
        supervisor: PartitionSupervisor,
        *,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._supervisor = supervisor
        self._committer = supervisor.committer
        self._storage = self._committer.storage
        self._broker = broker
        self._clock = clock
        self._entropy = entropy

    async def flush(
        self,
        function: str,
        *,
        partition: int | None = None,
        key: str | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Flushed:
        """Close the open windows of a function now; return when that is done, or after 20 s.

        Args:
            function: Its name.
            partition: A partition of the stream that it reads; None for all.
            key: The key of the windows, None for those without a key; not given: all windows, and the watermarks
                move to their ends.

        Raises:
            Unknown: There is no such function, or partition.
            Misuse: The function has no windows.
        """
        ends, sources = self._of(function)
        asked = [each for each in sources if partition in (None, each[1])]
        if not asked:
            raise Unknown(
                f"`{function}` reads {len(sources)} partitions, from 0; there is no {partition}"
            )
        # Distinguishes the windows that this request closes from those that close by time.
        name = self._entropy.token(16)
        # A list, as None is a key too: that of events without one.
        keys = None if key is msgspec.UNSET else [key]
        count = self._broker.stream(ends).partitions
        # Before the request: the closed windows are appended after these offsets.
        begin = [(await self._broker.extent(ends, number)).high for number in range(count)]
        now = self._clock.now()
        appends = [
            CloseRequest(stream, number, keys=keys, name=name).append(ends, count, now)
            for stream, number in asked
        ]
        landed = (await self._committer.commit(Change(appends=tuple(appends)))).positions
        # A log with its own storage returns no positions; then there is nothing to wait for.
        places = {number: at for (_, number), at in zip(asked, landed, strict=True) if at}
        waiting = await self._carried_out(function, places)
        windows: list[FlushedWindow] = []
        closed = 0
        async for window in self._closed_by(name, ends, begin):
            closed += 1
            # All are counted, but an answer cannot list a million windows.
            if len(windows) < MAX_LISTED:
                windows.append(window)
        state = ""
        if waiting:
            state = self._supervisor.state_of(function, ends, places[waiting[0]].partition)
        return Flushed(function, closed, windows, waiting, state)

    async def _carried_out(self, function: str, places: dict[int, Position]) -> list[int]:
        """Wait until the function has executed its requests; return the partitions where it has not."""
        until = self._clock.monotonic() + FLUSH_TIMEOUT_S
        waiting = sorted(places)
        while True:
            waiting = [each for each in waiting if not await self._is_done(function, places[each])]
            if not waiting or self._clock.monotonic() >= until:
                return waiting
            # Polled: the request is executed by a partition worker, maybe of another node, which
            # does not report to us.
            await self._clock.sleep(LOOK_S)

    async def _is_done(self, function: str, at: Position) -> bool:
        row = await self._storage.get(
            Space.POSITIONS, position_key(function, at.stream, at.partition)
        )
        return row is not None and Watermark(decode_position(row).progress).is_finished(at.offset)

    async def _closed_by(
        self, name: str, ends: str, begin: list[int]
    ) -> AsyncIterator[FlushedWindow]:
        """Yield the windows that the request of this name closed, by partition of their stream."""
        slices = Slices(self._clock)
        for partition, at in enumerate(begin):
            while chunks := await self._broker.fetch(
                ends, partition, at, events=PAGE_EVENTS, size=PAGE_BYTES
            ):
                for event in (event for chunk in chunks for event in chunk.events()):
                    await slices.step()
                    if event.headers and event.headers.get(FLUSH_HEADER) == name:
                        yield msgspec.msgpack.decode(event.value, type=FlushedWindow)
                at = chunks[-1].end

    def _of(self, function: str) -> tuple[str, list[tuple[str, int]]]:
        """Return the stream of a function's closed windows, and the partitions of its input."""
        spec = self._supervisor.known(function)
        if spec.ends is None:
            raise Misuse(f"`{function}` has no windows; name a function of `@app.window`")
        read = {
            stream
            for trigger in spec.triggers
            if isinstance(trigger, StreamTrigger)
            for stream in trigger.streams
        }
        found = [each for each in self._supervisor.partitions(function) if each[0] in read]
        return spec.ends[1], found
