"""Co-partitioned streams in event-time order. Pure: time is handed in, nothing waits here.

The stream whose next event is oldest goes first (ties: the stream named first), and only while every
stream has a next event; so the order depends on the logs alone. A stream that has run dry holds the
others back for `lateness` seconds at most, then they go on without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headrace.delivery.batcher import compact
from headrace.model.record import Chunk


class _Lane:
    """What waits of one stream, with the event times of its head chunk."""

    __slots__ = ("chunks", "events", "times")

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        self.times: list[int] = []
        self.events = 0

    def next_time(self) -> int:
        head = self.chunks[0]
        if not self.times:
            self.times = [event.time or head.appended for event in head.events()]
        return self.times[head.size * -1]

    def pop(self) -> tuple[Chunk, int]:
        """The head chunk's blob and the index of its next event, which is taken."""
        head = self.chunks[0]
        index = head.low
        self.events -= 1
        if head.size == 1:
            self.chunks.popleft()
            self.times = []
        else:
            self.chunks[0] = head.window(head.low + 1, head.high)
        return head, index


class Merge:
    """The events of several co-partitioned streams that wait to be batched. Owned by one pump."""

    def __init__(
        self, streams: int, *, events: int, size: int, window: float, lateness: float
    ) -> None:
        self._lanes = [_Lane() for _ in range(streams)]
        self._limit, self._size, self._window, self._lateness = events, size, window, lateness
        self._opened = 0.0
        self._held: float | None = None

    def __len__(self) -> int:
        return sum(lane.events for lane in self._lanes)

    def wanting(self) -> tuple[int, ...]:
        """Which readers to ask for more."""
        return tuple(i for i, lane in enumerate(self._lanes) if lane.events < self._limit)

    def add(self, reader: int, chunks: Sequence[Chunk], now: float) -> None:
        """Take what a reader read (`now` monotonic)."""
        if not len(self):
            self._opened = now
        lane = self._lanes[reader]
        for chunk in chunks:
            lane.chunks.append(chunk)
            lane.events += chunk.size
        if all(lane.events for lane in self._lanes):
            self._held = None
        elif len(self) and self._held is None:
            self._held = now

    def wait(self, now: float) -> float | None:
        """Seconds until a batch closes: 0 for at once, None where there is nothing to close."""
        waiting = len(self)
        if not waiting:
            return None
        held = 0.0
        if self._held is not None:
            held = max(self._held + self._lateness - now, 0.0)
        if waiting >= self._limit or self._window <= 0:
            return held
        return max(held, self._opened + self._window - now)

    def take(self, now: float) -> tuple[Chunk, ...]:
        """The next batch in event-time order."""
        late = self._held is not None and now >= self._held + self._lateness
        taken: list[Chunk] = []
        count, size = 0, 0
        while count < self._limit and size < self._size:
            ready = [lane for lane in self._lanes if lane.events]
            if not ready or (len(ready) < len(self._lanes) and not late):
                break
            lane = min(ready, key=_Lane.next_time)
            chunk, index = lane.pop()
            size += len(chunk.body) // chunk.count
            count += 1
            last = taken[-1] if taken else None
            if last is not None and last.body is chunk.body and last.high == index:
                taken[-1] = last.window(last.low, index + 1)
            else:
                taken.append(chunk.window(index, index + 1))
        self._opened = now
        if all(lane.events for lane in self._lanes):
            self._held = None
        elif len(self):
            self._held = now if self._held is None or not late else self._held
        else:
            self._held = None
        return compact(taken)
