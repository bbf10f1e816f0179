"""Windows over event time: which windows an event is in, what they hold, when they close.

Everything is decided from one partition's events in their order, and kept in the
event's own transaction. So the results are the same however the events are batched, tried again or
cut off by a crash. A partition's watermark is its latest event time less the lateness. A window that
closes becomes an event on a stream of the function's own; what is told of it is told from there.
On the same stream the function is asked to close what is open, where no event does so.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Any, Final

import msgspec

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.function import StoreSpec
from headrace.model.policy_struct import PolicyStruct
from headrace.model.stores import WINDOWS
from headrace.model.windows import (
    FLUSH_HEADER,
    CloseRequest,
    WindowProgress,
    progress_key,
    request_of,
    windows_place,
)
from headrace.sdk.context import Context
from headrace.sdk.event import Event
from headrace.sdk.state import State
from headrace.sdk.store import Store
from headrace.sdk.stream import Stream

MAX_SPAN_S: Final = 366 * 86_400.0
MIN_IDLE_S: Final = 0.1
MAX_PER_EVENT: Final = 1_000
"""Windows one event may be in."""
SHARDS: Final = 16
"""Rows over which the keys of windows that end together are spread."""
SHORT_KEY: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FOREVER: Final = 1 << 62
_WINDOWS: Final[Store[Any]] = Store(StoreSpec(name=WINDOWS))


class TumblingWindow(PolicyStruct, frozen=True):
    """Windows of one size, side by side, from the epoch on; each event is in one.

    Attributes:
        size: A time, such as `"1m"`.
    """

    size: Seconds

    def __post_init__(self) -> None:
        """Keep the size as seconds.

        Raises:
            Misuse: It is not a duration, or out of range.
        """
        keep_seconds(self, "size", low=0.001, high=MAX_SPAN_S)


class HoppingWindow(PolicyStruct, frozen=True):
    """Windows of one size that begin every `step`; an event is in several.

    Attributes:
        size: A time, such as `"10m"`.
        step: A time, at most `size`.
    """

    size: Seconds
    step: Seconds

    def __post_init__(self) -> None:
        """Keep both as seconds.

        Raises:
            Misuse: One is not a duration, or the two do not fit.
        """
        keep_seconds(self, "size", low=0.001, high=MAX_SPAN_S)
        keep_seconds(self, "step", low=0.001, high=MAX_SPAN_S)
        size, step = self.size, self.step
        if not step <= size <= step * MAX_PER_EVENT:
            raise Misuse(
                f"`HoppingWindow({size:g}, {step:g})`: `step` is at most `size`, and `size` at most "
                f"{MAX_PER_EVENT:,} times `step`"
            )


class SessionWindow(PolicyStruct, frozen=True):
    """Events of a key that follow each other within less than `gap`.

    Attributes:
        gap: The time, such as `"30m"`, of silence that end a session.
    """

    gap: Seconds

    def __post_init__(self) -> None:
        """Keep the gap as seconds.

        Raises:
            Misuse: It is not a duration, or out of range.
        """
        keep_seconds(self, "gap", low=0.001, high=MAX_SPAN_S)


Windows = TumblingWindow | HoppingWindow | SessionWindow


class ClosedWindow(msgspec.Struct, frozen=True):
    """A window that has closed.

    Attributes:
        key: Whose events it holds.
        start: The first moment in it; of a session, its first event's.
        end: The first moment after it; of a session, its last event's plus the gap.
        value: What its events were folded to.
    """

    key: str | None
    start: datetime
    end: datetime
    value: Any


class Opened(msgspec.Struct, array_like=True):
    """One key's open windows, each with start, end and what it holds.

    Attributes:
        closed: The end of the last window that was closed before the watermark reached it: for this
            key, windows that end there, or before, have closed.
    """

    key: str | None
    windows: list[tuple[int, int, Any]]
    closed: int | None = None


def spans_at(by: Windows, time: int) -> list[tuple[int, int]]:
    """The windows that an event of `time` is in, earliest first; of a session, its own share."""
    match by:
        case TumblingWindow(size=size):
            length = _micros(size)
            start = time - time % length
            return [(start, start + length)]
        case HoppingWindow(size=size, step=step):
            length, hop = _micros(size), _micros(step)
            last = time - time % hop
            count = (length - (time - last) - 1) // hop
            return [(last - n * hop, last - n * hop + length) for n in range(count, -1, -1)]
        case SessionWindow(gap=gap):
            return [(time, time + _micros(gap))]


class Folding:
    """Step of a window function: what it does with one event. Keeps nothing between two of them.

    Args:
        name: The function's full name.
        of: The type of what a window holds.
        closed: Takes the windows that have closed; the function reads it as well.
    """

    def __init__(
        self,
        name: str,
        by: Windows,
        fold: Callable[[Any, Event[Any]], Any],
        *,
        of: Any,
        combine: Callable[[Any, Any], Any] | None,
        lateness: float,
        output: Stream[Any],
        late: Stream[Any] | None,
        close: Callable[[ClosedWindow], Any] | None,
        closed: Stream[ClosedWindow],
    ) -> None:
        self._name = name
        self._by = by
        self._fold = fold
        self._of = of
        self._combine = combine
        self._lateness = _micros(lateness)
        self._output = output
        self._late = late
        self._close = close
        self._closed = closed
        match by:
            case TumblingWindow(size=size):
                self._width = _micros(size)
            case HoppingWindow(step=step):
                self._width = _micros(step)
            case SessionWindow(gap=gap):
                self._width = max(1, _micros(gap) // 16)

    def take(self, event: Event[Any], context: Context) -> None:
        """Fold the event into its windows, then close those that are over.

        Or tell of a window that was closed so: that is an event of its own, with its own attempts, so
        what fails there holds up neither other windows nor the event that came after them. Or do as
        a request on that stream asks.
        """
        if event.stream == self._closed.name:
            if isinstance(event.value, ClosedWindow):
                self._tell(event.value, context)
            else:
                self._close_now(request_of(event.value), context)
            return
        time = event._micros
        place = windows_place(event.stream, event.partition)
        standing = _rows(context).get(progress_key(place), WindowProgress(), type=WindowProgress)
        taken = self._put(place, event, time, standing, context)
        standing.last = event.offset
        mark = time - self._lateness
        if standing.watermark is None or mark > standing.watermark:
            standing.watermark = mark
        if standing.due is not None and standing.due <= standing.watermark:
            self._close_until(standing.watermark, place, standing, context)
        _rows(context).put(progress_key(place), standing)
        if not taken and self._late is not None:
            context.publish(
                self._late, event.value, key=event.key, headers=event.headers, time=event.time
            )

    def _put(
        self, place: str, event: Event[Any], time: int, standing: WindowProgress, context: Context
    ) -> bool:
        """Return whether a window was open for the event."""
        name = _name(event.key)
        row = f"{place}key/{name}"
        found = _rows(context).get(row, type=Opened) or Opened(event.key, [])
        low = standing.watermark
        taken = False
        for start, end in spans_at(self._by, time):
            held, rest = None, []
            for window in found.windows:
                if self._touches(window, start, end):
                    start, end = min(start, window[0]), max(end, window[1])
                    held = window[2] if held is None else self._join(held, window[2])
                else:
                    rest.append(window)
            if any(mark is not None and end <= mark for mark in (low, found.closed)):
                continue
            value = None if held is None else self._opened(held)
            rest.append((start, end, self._fold(value, event)))
            if held is None:
                # A session that grows is looked up when its old end is due.
                self._schedule(place, {(end, name)}, standing, context)
            found.windows, taken = sorted(rest, key=_span), True
        if not taken:
            return False
        _rows(context).put(row, found)
        return True

    def _touches(self, window: tuple[int, int, Any], start: int, end: int) -> bool:
        if isinstance(self._by, SessionWindow):
            return window[0] < end and start < window[1]
        return window[0] == start

    def _join(self, one: Any, other: Any) -> Any:
        # Only sessions grow together, and they were not declared without `combine`.
        if self._combine is None:
            raise Misuse(f"`{self._name}`: two sessions became one; say how with `combine=`")
        return msgspec.to_builtins(self._combine(self._opened(one), self._opened(other)))

    def _schedule(
        self, place: str, entries: set[tuple[int, str]], standing: WindowProgress, context: Context
    ) -> None:
        """Remember to look at each key when its moment is due."""
        for end, name in sorted(entries):
            bucket = -(-end // self._width)
            row = f"{place}due/{bucket}/{_shard(name)}"
            held: list[tuple[int, str]] = _rows(context).get(row, [], type=list[tuple[int, str]])
            if (end, name) not in held:
                _rows(context).put(row, [*held, (end, name)])
            if bucket not in standing.buckets:
                standing.buckets = sorted([*standing.buckets, bucket])
            standing.due = end if standing.due is None else min(standing.due, end)

    def _close_now(self, request: CloseRequest, context: Context) -> None:
        """Close open windows whose end no event has reached; what then comes for them is late."""
        place = windows_place(request.stream, request.partition)
        standing = _rows(context).get(progress_key(place), type=WindowProgress)
        if standing is None or (request.last is not None and request.last != standing.last):
            # An event has come in between: it is not idle.
            return
        headers = {FLUSH_HEADER: request.name} if request.name else None
        if request.keys is not None:
            for key in request.keys:
                self._close_all_of(f"{place}key/{_name(key)}", context, headers)
            return
        last = self._close_until(_FOREVER, place, standing, context, headers)
        if last is not None:
            standing.watermark = (
                last if standing.watermark is None else max(last, standing.watermark)
            )
            _rows(context).put(progress_key(place), standing)

    def _close_all_of(self, row: str, context: Context, headers: dict[str, str] | None) -> None:
        """Close the open windows of one key. The row stays until the watermark has come that far."""
        opened = _rows(context).get(row, type=Opened)
        if opened is None or not opened.windows:
            return
        self._closing(opened, opened.windows, context, headers)
        last = max(window[1] for window in opened.windows)
        _rows(context).put(row, Opened(opened.key, [], last))

    def _close_until(
        self,
        mark: int,
        place: str,
        standing: WindowProgress,
        context: Context,
        headers: dict[str, str] | None = None,
    ) -> int | None:
        """Close every window that ends at `mark` or before, the earliest first; the last such end."""
        last = None
        reached = [each for each in standing.buckets if (each - 1) * self._width < mark]
        rows = [f"{place}due/{bucket}/{shard}" for bucket in reached for shard in range(SHARDS)]
        found = _rows(context).get_many(rows, type=list[tuple[int, str]])
        entries = {entry for held in found.values() for entry in held}
        for row in found:
            _rows(context).delete(row)
        due = [entry for entry in entries if entry[0] <= mark]
        later = {entry for entry in entries if entry[0] > mark}
        heapify(due)
        while due:
            last, name = heappop(due)
            for grown in self._close_key(f"{place}key/{name}", last, context, headers):
                if grown <= mark:
                    heappush(due, (grown, name))
                else:
                    later.add((grown, name))
        standing.buckets = standing.buckets[len(reached) :]
        standing.due = (standing.buckets[0] - 1) * self._width if standing.buckets else None
        self._schedule(place, later, standing, context)
        return last

    def _close_key(
        self, row: str, end: int, context: Context, headers: dict[str, str] | None
    ) -> list[int]:
        """Close the key's windows that end at `end`; the ends of sessions that grew over it."""
        opened = _rows(context).get(row, type=Opened)
        if opened is None:
            return []
        left = [window for window in opened.windows if window[1] != end]
        over = [window for window in opened.windows if window[1] == end]
        self._closing(opened, over, context, headers)
        closed = opened.closed if opened.closed is not None and opened.closed > end else None
        if not left and closed is None:
            _rows(context).delete(row)
        elif over or closed != opened.closed:
            _rows(context).put(row, Opened(opened.key, left, closed))
        # A row that only says how far its key is closed goes when the watermark has come so far.
        again = [closed] if closed is not None else []
        if isinstance(self._by, SessionWindow):
            again += [window[1] for window in left if window[0] < end < window[1]]
        return again

    def _closing(
        self,
        opened: Opened,
        windows: list[tuple[int, int, Any]],
        context: Context,
        headers: dict[str, str] | None,
    ) -> None:
        """Put the windows, the earliest first, where they are told from."""
        for start, end, value in sorted(windows, key=_end):
            window = ClosedWindow(opened.key, _moment(start), _moment(end), value)
            context.publish(self._closed, window, key=opened.key, headers=headers, time=window.end)

    def _tell(self, closed: ClosedWindow, context: Context) -> None:
        """Publish what is to be told of a window."""
        window = msgspec.structs.replace(closed, value=self._opened(closed.value))
        told = window if self._close is None else self._close(window)
        if told is not None:
            context.publish(self._output, told, key=window.key, time=window.end)

    def _opened(self, value: Any) -> Any:
        return value if self._of is Any else msgspec.convert(value, self._of)


def _rows(context: Context) -> State[Any]:
    """What the function keeps of its windows, where no key of an author's leads."""
    return context.store(_WINDOWS)


def _span(window: tuple[int, int, Any]) -> tuple[int, int]:
    return window[0], window[1]


def _end(window: tuple[int, int, Any]) -> tuple[int, int]:
    return window[1], window[0]


def _name(key: str | None) -> str:
    """A key as a part of a state key, in bounds; none and the empty one are told apart."""
    if key is None:
        return "-"
    if len(key.encode("utf-8", "replace")) <= SHORT_KEY:
        return f"={key}"
    return "#" + hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=20).hexdigest()


def _shard(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "replace")) % SHARDS


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
