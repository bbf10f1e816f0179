"""Merge of co-partitioned streams in event-time order. Pure: the caller passes the time.

The stream with the oldest next event goes first (on a tie: the stream listed first), and only while
every stream has a next event; so the order depends on the logs alone. An empty stream delays the
others for at most `lateness` seconds, then they continue without it. `passes` records that
decision, so that a later merge of the same logs has the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headrace.delivery.intake.base import Intake
from headrace.delivery.intake.batcher import compact
from headrace.delivery.intake.merge.order import Key, Memory, MergeOrder, Piece
from headrace.model.record import Chunk

_NOTHING = 1 << 62


class _Lane:
    """Waiting events of one stream, and the position of the next event in its head chunk.

    `head` is that event's time. `exhausted` is whether the last read of the log returned nothing;
    `since` is when the stream started to delay the others.
    """

    __slots__ = ("_times", "chunks", "events", "exhausted", "head", "index", "since")

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        self.events = self.index = self.head = 0
        self.exhausted = True
        self.since: float | None = None
        self._times: list[int] = []

    def add(self, chunks: Sequence[Chunk]) -> None:
        was_dry = not self.events
        for chunk in chunks:
            self.chunks.append(chunk)
            self.events += chunk.size
        if was_dry and self.events:
            self._open()

    def next_offset(self) -> int:
        return self.chunks[0].offset_of(self.index)

    def take(self, most: int, *, before: int) -> tuple[int, int, int]:
        """Take the next event, and of its chunk those up to `most` whose time is less than `before`.

        Returns:
            The indices in the chunk, half-open, and the latest time of these events.
        """
        chunk, low, times = self.chunks[0], self.index, self._times
        first, end = chunk.low, chunk.high
        high, latest = low + 1, self.head
        if before:
            last = min(end, low + most)
            while high < last and (time := times[high - first]) < before:
                high += 1
                if time > latest:
                    latest = time
        self.events -= high - low
        if high < end:
            self.index = high
            self.head = times[high - first]
        else:
            self.chunks.popleft()
            if self.events:
                self._open()
        return low, high, latest

    def _open(self) -> None:
        chunk = self.chunks[0]
        self._times = [
            chunk.appended if event.time is None else event.time for event in chunk.events()
        ]
        self.index = chunk.low
        self.head = self._times[0]


class Merge(Intake):
    """The events of several co-partitioned streams that wait to be batched. Owned by one partition worker.

    Attributes:
        passes: Its position, and the streams that it passed over.
        handed_out: Events that were taken and, as far as `MergeOrderStore` knows, are not finished.
    """

    def __init__(
        self, streams: int, *, events: int, size: int, window: float, lateness: float
    ) -> None:
        self.passes = MergeOrder(streams)
        self.handed_out: deque[Chunk] = deque()
        self._lanes = [_Lane() for _ in range(streams)]
        self._limit = events
        self._size = size
        self._window = window
        self._lateness = lateness
        self._owed: deque[Piece] = deque()
        self._opened = 0.0
        self._dry: list[int] = []
        self._excused: list[int] = []

    def __len__(self) -> int:
        return sum(lane.events for lane in self._lanes)

    def resume(self, memory: Memory) -> None:
        """Start from the stored order, before anything is added."""
        self.passes.recall(memory)
        self._owed.extend(memory.owed)

    def wanting(self) -> tuple[int, ...]:
        """Return the readers to read from; one that adds nothing before `wait` counts as exhausted."""
        wanting = tuple(i for i, lane in enumerate(self._lanes) if lane.events < self._limit)
        for index in wanting:
            # `add` clears it; a reader without events is not added, and so stays exhausted.
            self._lanes[index].exhausted = True
        return wanting

    def add(self, reader: int, chunks: Sequence[Chunk], started: float) -> None:
        """Add the filtered chunks of a reader, even if none is left; a window `started` then (monotonic)."""
        if not len(self):
            self._opened = started
        lane = self._lanes[reader]
        lane.exhausted = False
        was_dry = not lane.events
        lane.add(chunks)
        if was_dry and lane.events:
            lane.since = None
            self.passes.arrived(reader, self._key(reader))

    def wait(self, now: float) -> float | None:
        """Return the seconds until a batch closes: 0 for now, None if there is nothing to close."""
        _, held = self._next(now)
        if held is None or len(self) >= self._limit or self._window <= 0:
            return held
        return max(held, self._opened + self._window - now)

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """Return the next batch in event-time order; always one."""
        taken: list[Chunk] = []
        count, size = 0, 0
        while count < self._limit and size < self._size:
            place, before = self._by_the_logs()
            if place is None:
                place = self._next(now)[0]
                if place is None:
                    break
                before = self._until(place)
            lane = self._lanes[place]
            chunk = lane.chunks[0]
            # An average, as exact sizes would need a split of the blob.
            each = len(chunk.body) // chunk.count or 1
            most = min(self._limit - count, -(-(self._size - size) // each))
            low, high, latest = lane.take(most, before=before)
            # Owed pieces were handed out before: they change neither cursors nor passes.
            if not self._owed:
                end = chunk.offset_of(high - 1) + 1
                self.passes.took(place, end, (latest, place), dry=self._dry, held=self._excused)
            count += high - low
            size += each * (high - low)
            last = taken[-1] if taken else None
            if last is not None and last.body is chunk.body and last.high == low:
                taken[-1] = last.window(last.low, high)
            else:
                taken.append(chunk.window(low, high))
        self._opened = now
        batch = compact(taken)
        self.handed_out.extend(batch)
        return batch

    # --- the next stream -------------------------------------------------------------------

    def _by_the_logs(self) -> tuple[int | None, int]:
        """Return the next stream if the logs alone decide it, and the time up to which it may continue."""
        if self._owed or self.passes.is_following:
            return None, 0
        self._dry = []
        self._excused = []
        first, place, before = _NOTHING, None, _NOTHING
        for number, lane in enumerate(self._lanes):
            if not lane.events:
                return None, 0
            if lane.head < first:
                # With equal times, the stream listed first goes first.
                first, place, before = lane.head, number, first
            elif lane.head < before:
                before = lane.head + 1
        return place, before

    def _next(self, now: float) -> tuple[int | None, float | None]:
        """Return the next stream (with 0 seconds), or the seconds until a stream continues without the empty ones.

        Neither if nothing waits, or if the log must be read first.
        """
        self._dry = []
        self._excused = []
        if self._owed and (found := self._next_owed()) is not None:
            return found
        ready = [place for place, lane in enumerate(self._lanes) if lane.events]
        if len(ready) == len(self._lanes) and not self.passes.is_following:
            return self._first(ready), 0.0
        if not ready:
            for lane in self._lanes:
                lane.since = None
            return None, None
        if not all(lane.events or lane.exhausted for lane in self._lanes):
            return None, None
        return self._next_without(ready, now)

    def _next_without(self, ready: list[int], now: float) -> tuple[int | None, float | None]:
        """As `_next`, if a stream is empty or an earlier decision may hold it back."""
        # An empty stream has no next offset: no other stream can be held back for its events.
        places = [lane.next_offset() if lane.events else _NOTHING for lane in self._lanes]
        held = [place for place in range(len(places)) if self._is_held(place, places)]
        free = [place for place in ready if place not in held]
        self._dry = [place for place, lane in enumerate(self._lanes) if not lane.events]
        self._excused = [place for place in self._dry if place in held]
        left = 0.0
        for place, lane in enumerate(self._lanes):
            if lane.events or place in held:
                lane.since = None
                continue
            lane.since = now if lane.since is None else lane.since
            left = max(left, lane.since + self._lateness - now)
        # All empty streams wait at the same time, so the longest wait counts.
        if left > 0:
            return None, left
        if not free:
            # Each stream waits for another, which no single run can have stored: the trigger's
            # pattern has changed since. Drop the decision, or the merge would wait for ever.
            chosen = self._first(ready)
            self.passes.lapse(chosen, places[chosen])
            return chosen, 0.0
        return self._first(free), 0.0

    def _next_owed(self) -> tuple[int | None, float | None] | None:
        """Return the next stream in an order that was handed out before; None once all of it is done."""
        while self._owed:
            piece = self._owed[0]
            lane = self._lanes[piece.stream]
            if lane.events:
                if lane.next_offset() < piece.high:
                    return piece.stream, 0.0
            elif not lane.exhausted:
                return None, None
            # Finished meanwhile, or deleted from the log.
            self._owed.popleft()
        return None

    def _is_held(self, place: int, places: Sequence[int]) -> bool:
        at = places[place] if self._lanes[place].events else self.passes.cursors[place]
        return self.passes.holds(place, at, places)

    def _until(self, place: int) -> int:
        """Return the time up to which the stream's events follow each other, independent of empty streams."""
        if self._owed or self.passes.is_following:
            return 0
        others = (
            lane.head + (number > place)
            for number, lane in enumerate(self._lanes)
            if lane.events and number != place
        )
        return min(others, default=_NOTHING)

    def _first(self, places: Sequence[int]) -> int:
        return min(places, key=self._key)

    def _key(self, place: int) -> Key:
        return self._lanes[place].head, place
