"""Rules for silences and missing partners. Pure: from records with their times they compute what is due.

`Quiet` finds the silences of a stream or of each of its keys, `Partners` the records of one stream
that found none of their key in another. Both are shown records again after a restart and then return
the same cases again; the caller reports each only once.
"""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

MAX_OPEN: Final = 1_000_000
"""Keys or records that may be open at once; the oldest are dropped unreported beyond it."""
NEVER: Final = 1 << 62


class Case(NamedTuple):
    """Something that did not happen: when that was certain, for which key, since which record."""

    due: int
    key: str
    place: str


class Quiet:
    """Silences longer than `span`. With `begin` the whole stream counts from there, without keys."""

    def __init__(self, span: int, *, begin: int | None) -> None:
        self._span = span
        self._last: dict[str, tuple[int, str]] = {}
        self._ended: list[Case] = []
        self._heap: list[tuple[int, str]] = []
        if begin is not None:
            self._note("", begin, "")

    def see(self, key: str, time: int, place: str) -> None:
        """A record of `key` was appended at `time`; times of one key mostly ascend."""
        known = self._last.get(key)
        if known is not None:
            # Partitions are read one after another: an older record may come later, and ends no
            # silence.
            if time <= known[0]:
                return
            if time - known[0] >= self._span:
                # The silence ended before the next look; it is reported all the same.
                self._ended.append(Case(known[0] + self._span, key, known[1]))
        self._note(key, time, place)

    def _note(self, key: str, time: int, place: str) -> None:
        self._last[key] = time, place
        # Old entries stay in the heap, and `due` skips them: finding one to remove would cost a
        # walk through all.
        heapq.heappush(self._heap, (time + self._span, key))
        while len(self._last) > MAX_OPEN:
            self._last.pop(heapq.heappop(self._heap)[1], None)

    def due(self, now: int) -> list[Case]:
        """Every silence that was certain by `now`, by time; each is given once."""
        found, self._ended = self._ended, []
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            known = self._last.get(key)
            # Else the entry is outdated: a later record of the key has moved its end.
            if known is not None and known[0] + self._span == due:
                found.append(Case(due, key, known[1]))
                # One silence is reported once, however long it lasts; the next record begins
                # another.
                del self._last[key]
        return sorted(found)

    def next_due(self) -> int:
        """The time at which the next silence is certain, unless a record comes."""
        return self._heap[0][0] if self._heap else NEVER

    def is_open_before(self, time: int) -> bool:
        """Return True where something that is due by `time` was not returned yet."""
        return bool(self._ended) or self.next_due() <= time


class Partners:
    """Records without a partner of their key within `span`, before or after; from `since` on."""

    def __init__(self, span: int, *, since: int) -> None:
        self._span = span
        self._since = since
        self._open: dict[str, list[tuple[int, str]]] = {}
        self._partners: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._ages: list[tuple[int, str]] = []

    def see(self, key: str, time: int, place: str) -> None:
        """A record that expects a partner."""
        partner = self._partners.get(key)
        is_met = partner is not None and abs(partner - time) <= self._span
        if time < self._since or is_met:
            return
        self._open.setdefault(key, []).append((time, place))
        heapq.heappush(self._heap, (time + self._span, key))
        while len(self._heap) > MAX_OPEN:
            self._open.pop(heapq.heappop(self._heap)[1], None)

    def see_partner(self, key: str, time: int, place: str) -> None:
        """A partner; it serves every record of its key that is near enough."""
        del place
        self._partners[key] = max(time, self._partners.get(key, 0))
        heapq.heappush(self._ages, (time, key))
        waiting = self._open.get(key)
        if waiting is not None:
            left = [one for one in waiting if abs(one[0] - time) > self._span]
            if left:
                self._open[key] = left
            else:
                del self._open[key]
        while len(self._ages) > MAX_OPEN:
            self._forget_oldest()

    def due(self, now: int) -> list[Case]:
        """Every record whose time was over by `now`, by time; each is given once."""
        found: list[Case] = []
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            for time, place in self._open.get(key, ()):
                if time + self._span == due:
                    found.append(Case(due, key, place))
            left = [one for one in self._open.get(key, ()) if one[0] + self._span > due]
            if left:
                self._open[key] = left
            else:
                self._open.pop(key, None)
        # Two spans: a partner may come one span before its record, which is overdue one span after
        # itself.
        while self._ages and self._ages[0][0] < now - 2 * self._span:
            self._forget_oldest()
        return sorted(found)

    def _forget_oldest(self) -> None:
        time, key = heapq.heappop(self._ages)
        # A later partner of the same key may have taken its place.
        if self._partners.get(key) == time:
            del self._partners[key]

    def next_due(self) -> int:
        """The time at which the next record is overdue."""
        return self._heap[0][0] if self._heap else NEVER

    def is_open_before(self, time: int) -> bool:
        """Return True where something that is due by `time` was not returned yet."""
        return self.next_due() <= time
