"""Lanes: order per key, with many keys at once. Pure: the caller passes the time.

Every key is a lane. A lane with an event in flight, or waiting for a retry, is closed: its later
events wait behind it, independent of other lanes. An event without a key (and every event of a
function with `order="none"`) is a separate lane. A batch takes from open lanes in the order of
their first events, so no key starves; `LaneRules` hold the exceptions of flow control:

    nothing waits -> held (until a time) -> open -> closed (in flight) -> held or open again
                                            open <-> blocked (its key has reached its limit)
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from headrace.delivery.flow.debounce_waits import DebounceWaits
from headrace.delivery.intake.base import Intake, Left
from headrace.delivery.intake.batcher import assemble, split
from headrace.delivery.unit import FOREVER
from headrace.model.event import Event
from headrace.model.policy import MAX_PRIORITY
from headrace.model.record import Chunk

MICROS = 1_000_000

At = tuple[str, int]
Lane = tuple[str, str | None] | At


class LaneRules(msgspec.Struct, frozen=True, kw_only=True):
    """Flow control's rules for lanes.

    Attributes:
        by_key: Whether keys are lanes; otherwise every event is one.
        together: Whether events without a key are one lane.
        one_key: Whether a batch holds events of one key only, its window counted per key.
        singly: Whether a batch holds at most one event of a key.
        skip: Whether events that arrive while their lane is closed are left out.
        quiet: Microseconds without an event of a lane, after which its last event is delivered; 0
            is off.
        longest: Microseconds after the first event, after which the last one is delivered anyway; 0
            is off.
        priority: The header with the seconds by which an event goes ahead, or None.
        until: Returns when a key may run, as `FlowLimiter.until_key`; None if keys have no limits.
    """

    by_key: bool = True
    together: bool = False
    one_key: bool = False
    singly: bool = False
    skip: bool = False
    quiet: int = 0
    longest: int = 0
    priority: str | None = None
    until: Callable[[str | None, int], int] | None = None


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """One event: its bytes, its offset, and the chunk it came in."""

    raw: msgspec.Raw
    offset: int
    chunk: Chunk
    number: int
    key: str | None = None
    rank: int = 0


class Lanes(Intake):
    """The events of one partition that wait for their key. Owned by one partition worker."""

    def __init__(
        self,
        *,
        events: int,
        size: int,
        window: float,
        capacity: int,
        rules: LaneRules | None = None,
        waits: DebounceWaits | None = None,
    ) -> None:
        rules = rules or LaneRules()
        self._limit = events
        self._size = size
        self._window = 0.0 if rules.one_key else window
        self._key_window = int(window * MICROS) if rules.one_key else 0
        self._capacity = capacity
        self._rules = rules
        self._is_plain = rules in (LaneRules(), LaneRules(by_key=False))
        self._holds = bool(rules.quiet or self._key_window)
        self._lanes: defaultdict[Lane, deque[_Waiting]] = defaultdict(deque)
        # A dictionary keeps the order of insertion, which is the order of service.
        self._open: dict[Lane, None] = {}
        self._closed: dict[Lane, int] = {}
        self._flying: dict[At, Lane] = {}
        self._due: dict[Lane, int] = {}
        self._since: dict[Lane, int] = {}
        self._waits = waits
        self._carried_on: dict[Lane, tuple[str | None, int]] = {}
        self._held: list[tuple[int, int, Lane]] = []
        self._blocked: dict[str | None, deque[Lane]] = {}
        self._ranked: list[tuple[int, int, Lane]] = []
        self._left: list[Left] = []
        self._waiting = 0
        self._number = self._turns = 0
        self._opened = 0.0
        self._now = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def is_ready(self) -> bool:
        """Return whether a whole batch can be taken now; only for lanes without special rules."""
        return self._is_plain and len(self._open) >= self._limit

    @property
    def runs_dry(self) -> bool:
        """Return whether more can be read ahead, and there is no whole batch."""
        return self._is_plain and len(self._open) < self._limit and bool(self.wanting())

    def wanting(self) -> tuple[int, ...]:
        """Return reader 0, while more can be read ahead."""
        return (0,) if self._waiting + len(self._flying) < self._capacity else ()

    def look(self, now: int) -> None:
        """Open lanes that were held until `now` (microseconds since the epoch)."""
        if now < self._now:
            self._set_back(self._now - now)
        self._now = now
        while self._held and self._held[0][0] <= now:
            due, _, lane = heapq.heappop(self._held)
            # The heap keeps outdated entries, as removing from its middle is linear; only the
            # latest date of a lane counts.
            if self._due.get(lane) == due:
                del self._due[lane]
                if lane in self._lanes and lane not in self._closed:
                    self._admit(lane)

    def _set_back(self, by: int) -> None:
        """Move all dates back, as the clock was set back: no lane waits longer because of that."""
        # All by the same amount, so the list stays a heap.
        self._held = [(due - by, turn, lane) for due, turn, lane in self._held]
        self._due = {lane: due - by for lane, due in self._due.items()}
        self._since = {lane: min(since, self._now - by) for lane, since in self._since.items()}

    def left_out(self) -> list[Left]:
        """Return what was left out since the last call: it counts as done."""
        if self._waits is not None:
            for lane, (key, offset) in self._carried_on.items():
                self._waits.carried_on((lane[0], key), (lane[0], offset), self._since[lane])
            self._carried_on.clear()
        found, self._left = self._left, []
        return found

    def add(self, reader: int, chunks: Sequence[Chunk], started: float) -> None:
        """Add chunks of reader 0 to the lanes of their keys; a window `started` then (monotonic)."""
        if not self._open:
            self._opened = started
        for chunk in chunks:
            self._number += 1
            raws = split(chunk.body)
            for index, event in enumerate(chunk.events(), start=chunk.low):
                self._lay(chunk, index, event, raws[index])

    def _lay(self, chunk: Chunk, index: int, event: Event, raw: msgspec.Raw) -> None:
        rules, offset = self._rules, chunk.offset_of(index)
        lane: Lane = (
            (chunk.stream, event.key)
            if rules.by_key and (event.key is not None or rules.together)
            else (chunk.stream, offset)
        )
        if rules.skip and lane in self._closed:
            self._left.append((chunk.window(index, index + 1), "singleton"))
            return
        rank = 0 if rules.priority is None else rank_of(chunk.appended, event, rules.priority)
        waiting = self._lanes[lane]
        if rules.quiet:
            self._supersede(lane, waiting, event.key, offset, chunk.appended)
        waiting.append(_Waiting(raw, offset, chunk, self._number, event.key, rank))
        self._waiting += 1
        if lane in self._closed:
            return
        if self._holds:
            self._hold(lane, waiting)
        else:
            self._admit(lane)

    def _supersede(
        self, lane: Lane, waiting: deque[_Waiting], key: str | None, offset: int, appended: int
    ) -> None:
        """Leave out the events that wait before the last one, which replaces them."""
        if not waiting:
            self._since[lane] = (
                appended if self._waits is None else self._waits.since((lane[0], offset), appended)
            )
            return
        for one in waiting:
            self._left.append((_chunk([one]), "debounce"))
        self._carried_on[lane] = (key, offset)
        self._waiting -= len(waiting)
        waiting.clear()

    def _hold(self, lane: Lane, waiting: deque[_Waiting]) -> None:
        """Hold the lane until it has been quiet, or its window is over."""
        rules = self._rules
        if rules.quiet:
            appended = waiting[-1].chunk.appended
            # An append that lies so far in the future was made before the clock was set back.
            due = (appended if appended <= self._now + rules.quiet else self._now) + rules.quiet
            if rules.longest:
                due = min(due, self._since[lane] + rules.longest)
        elif len(waiting) >= self._limit or lane in self._open:
            # Its window is over; events that arrive before it is taken do not start another
            # window.
            due = 0
        else:
            # Counted from the first append, so that a crash does not start the window again.
            due = min(waiting[0].chunk.appended, self._now) + self._key_window
        if due <= self._now:
            self._due.pop(lane, None)
            self._admit(lane)
        elif self._due.get(lane) != due:
            self._open.pop(lane, None)
            self._hold_until(lane, due)

    def _hold_until(self, lane: Lane, due: int) -> None:
        self._due[lane] = due
        self._turns += 1
        heapq.heappush(self._held, (due, self._turns, lane))

    def _admit(self, lane: Lane) -> None:
        self._open[lane] = None
        if self._rules.priority is not None:
            self._turns += 1
            heapq.heappush(self._ranked, (self._lanes[lane][0].rank, self._turns, lane))

    def wait(self, now: float) -> float | None:
        """Return the seconds until a batch closes: 0 for now, None if every waiting lane is closed."""
        held = None if not self._held else max(self._held[0][0] - self._now, 0) / MICROS
        if not self._open:
            return held
        if self._window <= 0 or len(self._open) >= self._limit:
            return 0.0
        waits = max(self._opened + self._window - now, 0.0)
        return waits if held is None else min(waits, held)

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """Return the next batch, in order within each key; its lanes are closed until `release`.

        Always one batch: each may close lanes that the next one would take from.
        """
        rules = self._rules
        taken: dict[int, list[_Waiting]] = {}
        count, size = 0, 0
        while self._open and count < self._limit and (size < self._size or not count):
            lane = self._first()
            waiting = self._lanes[lane]
            if rules.until is not None and self._is_blocked(lane, waiting[0].key, rules.until):
                continue
            while waiting and count < self._limit and (size < self._size or not count):
                one = waiting.popleft()
                # Grouped by stored chunk: hops, origin and time of append belong to the chunk.
                taken.setdefault(one.number, []).append(one)
                self._flying[one.chunk.stream, one.offset] = lane
                # A count, since a batch may hold several events of a lane: the last release opens
                # it.
                self._closed[lane] = self._closed.get(lane, 0) + 1
                count += 1
                size += len(memoryview(one.raw))
                if rules.singly:
                    break
            del self._open[lane]
            if rules.skip and waiting:
                self._left.extend((_chunk([one]), "singleton") for one in waiting)
                self._waiting -= len(waiting)
                waiting.clear()
            if not waiting:
                del self._lanes[lane]
                self._since.pop(lane, None)
            if rules.one_key:
                break
        self._waiting -= count
        self._opened = now
        return tuple(_chunk(taken[number]) for number in sorted(taken))

    def _first(self) -> Lane:
        """Return the open lane that is taken first."""
        while self._ranked:
            lane = self._ranked[0][2]
            if lane in self._open:
                return lane
            heapq.heappop(self._ranked)
        return next(iter(self._open))

    def _is_blocked(
        self, lane: Lane, key: str | None, until: Callable[[str | None, int], int]
    ) -> bool:
        """Return whether the lane's key has reached its limit; if so, the lane waits until it may run."""
        due = until(key, self._now)
        if due <= self._now:
            return False
        del self._open[lane]
        if due >= FOREVER:
            self._blocked.setdefault(key, deque()).append(lane)
        else:
            self._hold_until(lane, due)
        return True

    def unblock(self, key: str | None) -> None:
        """Open one lane that waited for a run of this key to end."""
        lanes = self._blocked.get(key)
        while lanes:
            lane = lanes.popleft()
            # One lane only: the ended run freed one slot, and the next end opens the next lane.
            if lane in self._lanes and lane not in self._closed:
                self._admit(lane)
                break
        if lanes is not None and not lanes:
            del self._blocked[key]

    def release(self, chunks: Iterable[Chunk]) -> bool:
        """Release finished events: lanes that wait for nothing else are open again.

        Returns:
            Whether more can now be taken or read.
        """
        changed = False
        for chunk in chunks:
            for index in range(chunk.low, chunk.high):
                lane = self._flying.pop((chunk.stream, chunk.offset_of(index)), None)
                if lane is None:
                    continue
                changed = True
                left = self._closed[lane] - 1
                if left:
                    self._closed[lane] = left
                    continue
                del self._closed[lane]
                if lane not in self._lanes:
                    continue
                if self._holds:
                    self._hold(lane, self._lanes[lane])
                else:
                    self._admit(lane)
        return changed


def rank_of(appended: int, event: Event, header: str) -> int:
    """Return the rank of an event: its time of append, minus the seconds by which it goes ahead."""
    text = (event.headers or {}).get(header, "0")
    try:
        ahead = int(text)
    except ValueError:
        # Producers to queues get an error for such a header; on other streams it has no meaning.
        ahead = 0
    return appended - max(min(ahead, MAX_PRIORITY), -MAX_PRIORITY) * MICROS


def _chunk(events: list[_Waiting]) -> Chunk:
    """Return a chunk of events that were picked from one stored chunk, by offset."""
    events.sort(key=lambda one: one.offset)
    source = events[0].chunk
    offsets = tuple(one.offset for one in events)
    return Chunk(
        source.stream,
        source.partition,
        offsets[0],
        len(events),
        assemble([one.raw for one in events]),
        source.appended,
        0,
        len(events),
        source.hops,
        source.origin,
        offsets,
    )
