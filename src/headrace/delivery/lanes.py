"""Order per key, as many keys at once as there is room. Pure: time is handed in, nothing waits here.

Every key is a lane. A lane with an event in flight, or waiting to be tried again, is closed: its later
events stay behind it, whatever the other lanes do. Events without a key (and all events of an
`unordered` function) are lanes of their own. A batch takes from open lanes in the order in which
their first events came, so no key starves.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import msgspec

from headrace.delivery.batcher import assemble, split
from headrace.model.record import Chunk

At = tuple[str, int]
Lane = tuple[str, str] | At


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """One event: its bytes, its offset, and the chunk it came in."""

    raw: msgspec.Raw
    offset: int
    chunk: Chunk
    number: int


class Lanes:
    """The events of one partition that wait for their key's turn. Owned by one pump."""

    def __init__(
        self, *, events: int, size: int, window: float, room: int, by_key: bool = True
    ) -> None:
        self._limit, self._size, self._window = events, size, window
        self._room = room
        self._by_key = by_key
        self._lanes: defaultdict[Lane, deque[_Waiting]] = defaultdict(deque)
        self._open: dict[Lane, None] = {}
        self._closed: dict[Lane, int] = {}
        self._flying: dict[At, Lane] = {}
        self._waiting = 0
        self._number = 0
        self._opened = 0.0

    def __len__(self) -> int:
        return self._waiting

    def wanting(self) -> tuple[int, ...]:
        """Which readers to ask for more: reader 0, while there is room to look ahead."""
        return (0,) if self._waiting + len(self._flying) < self._room else ()

    def add(self, reader: int, chunks: Sequence[Chunk], now: float) -> None:
        """Lay what reader 0 read behind the last of its key (`now` monotonic)."""
        if not self._open:
            self._opened = now
        for chunk in chunks:
            self._number += 1
            raws = split(chunk.body)
            for index, event in enumerate(chunk.events(), start=chunk.low):
                offset = chunk.offset_of(index)
                lane: Lane = (
                    (chunk.stream, event.key)
                    if self._by_key and event.key is not None
                    else (chunk.stream, offset)
                )
                self._lanes[lane].append(_Waiting(raws[index], offset, chunk, self._number))
                if lane not in self._closed:
                    self._open[lane] = None
            self._waiting += chunk.size

    def wait(self, now: float) -> float | None:
        """Seconds until a batch closes: 0 for at once, None where every waiting lane is closed."""
        if not self._open:
            return None
        if self._window <= 0 or len(self._open) >= self._limit:
            return 0.0
        return max(self._opened + self._window - now, 0.0)

    def take(self, now: float) -> tuple[Chunk, ...]:
        """The next batch, in order within each key; its lanes are closed until `release`."""
        taken: dict[int, list[_Waiting]] = {}
        count, size = 0, 0
        while self._open and count < self._limit and (size < self._size or not count):
            lane = next(iter(self._open))
            waiting = self._lanes[lane]
            while waiting and count < self._limit and (size < self._size or not count):
                one = waiting.popleft()
                taken.setdefault(one.number, []).append(one)
                self._flying[one.chunk.stream, one.offset] = lane
                self._closed[lane] = self._closed.get(lane, 0) + 1
                count += 1
                size += len(memoryview(one.raw))
            del self._open[lane]
            if not waiting:
                del self._lanes[lane]
        self._waiting -= count
        self._opened = now
        return tuple(_chunk(taken[number]) for number in sorted(taken))

    def release(self, chunks: Iterable[Chunk]) -> None:
        """These events need no more runs: lanes that wait for nothing else are open again."""
        for chunk in chunks:
            for index in range(chunk.low, chunk.high):
                lane = self._flying.pop((chunk.stream, chunk.offset_of(index)), None)
                if lane is None:
                    continue
                left = self._closed[lane] - 1
                if left:
                    self._closed[lane] = left
                    continue
                del self._closed[lane]
                if lane in self._lanes:
                    self._open[lane] = None


def _chunk(events: list[_Waiting]) -> Chunk:
    """Events of one stored chunk, picked out of it, by offset."""
    events.sort(key=lambda one: one.offset)
    source = events[0].chunk
    offsets = tuple(one.offset for one in events)
    return Chunk(
        source.stream, source.partition, offsets[0], len(events),
        assemble([one.raw for one in events]), source.appended, 0, len(events),
        source.hops, source.origin, offsets,
    )  # fmt: skip
