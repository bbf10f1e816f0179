"""AWS cron: `minutes hours day-of-month month day-of-week year`, in a time zone. Pure.

As EventBridge Scheduler documents it: one of the two day fields is `?`; days of the week are 1
(SUN) to 7; `L`, `W` and `#` are known. A fixed time that daylight saving skips is left out, one
that comes twice counts the first time; where hours are `*` every hour counts as it is.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from headrace.model.errors import Misuse

MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
# As EventBridge documents the field.
FIRST_YEAR, LAST_YEAR = 1970, 2199
_ITEM: Final = re.compile(r"(?P<low>\*|\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\d+))?")


class AwsCron:
    """An AWS cron expression (what stands between the brackets) that was read."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._zone = zone
        self._expression = expression
        fields = expression.upper().split()
        if len(fields) != 6:
            raise self._refusal(
                f"{len(fields)} fields; write minutes, hours, day of month, month, day of week, year"
            )
        minutes, hours, days, months, weekdays, years = fields
        if (days == "?") == (weekdays == "?"):
            raise self._refusal("exactly one of day of month and day of week must be `?`")
        self._minutes = sorted(self._numbers(minutes, 0, 59))
        self._hours = sorted(self._numbers(hours, 0, 23))
        self._months = sorted(self._numbers(months, 1, 12, MONTHS))
        self._years = sorted(self._numbers(years, FIRST_YEAR, LAST_YEAR))
        self._days = days
        self._weekdays = weekdays
        self._every_hour = hours.startswith("*")
        # Looked at once, so that what cannot be read, or has no day in any year, is refused now.
        if not any(self._days_of(year, month) for year in self._years for month in self._months):
            raise self._refusal("no date will ever fit it")

    def times(self, after: datetime) -> Iterator[datetime]:
        """Every time after `after` (an aware datetime), ascending; ends with the last year."""
        # With fixed hours the wall clock decides; with `*` every hour that passes counts, so the
        # two ways differ at a change of the clock.
        if self._every_hour:
            yield from self._by_the_hour(after)
            return
        last = after.astimezone(UTC)
        for wall in self._wall_times(after.astimezone(self._zone).replace(tzinfo=None)):
            moment = wall.replace(tzinfo=self._zone, fold=0)
            at = moment.astimezone(UTC)
            # A wall time in the gap comes back from UTC as another one. AWS leaves such runs out.
            is_skipped = at.astimezone(self._zone).replace(tzinfo=None) != wall
            if not is_skipped and at > last:
                last = at
                yield at

    def _by_the_hour(self, after: datetime) -> Iterator[datetime]:
        """Count through each stretch between two changes of the clock with its own offset."""
        at = after.astimezone(UTC)
        offset = _offset(at, self._zone)
        while True:
            for wall in self._wall_times((at + offset).replace(tzinfo=None)):
                found = wall.replace(tzinfo=UTC) - offset
                # Beyond the next change of the clock this offset is wrong: continue from there
                # with the new one.
                if _offset(found, self._zone) != offset:
                    break
                at = found
                yield at
            else:
                return
            change = _change(at, found, self._zone)
            at, offset = change - timedelta(seconds=1), _offset(change, self._zone)

    def _wall_times(self, after: datetime) -> Iterator[datetime]:
        """Every reading of the wall clock that fits, after `after`."""
        for year in self._years:
            if year < after.year:
                continue
            for month in self._months:
                if (year, month) < (after.year, after.month):
                    continue
                for day in self._days_of(year, month):
                    if date(year, month, day) < after.date():
                        continue
                    for hour in self._hours:
                        for minute in self._minutes:
                            wall = datetime(year, month, day, hour, minute)  # noqa: DTZ001 - a wall
                            if wall > after:
                                yield wall

    # --- days -------------------------------------------------------------------------------

    def _days_of(self, year: int, month: int) -> list[int]:
        first, length = calendar.monthrange(year, month)
        found: set[int] = set()
        if self._weekdays == "?":
            for item in self._days.split(","):
                found |= self._by_date(item, year, month, length)
        else:
            for item in self._weekdays.split(","):
                found |= self._by_weekday(item, (first + 1) % 7, length)
        return sorted(day for day in found if day <= length)

    def _by_date(self, item: str, year: int, month: int, length: int) -> set[int]:
        if item == "L":
            return {length}
        if item == "LW":
            return {_nearest(year, month, length, length)}
        if back := re.fullmatch(r"L-(\d+)", item):
            if not 1 <= int(back[1]) <= 30:
                raise self._refusal(f"`{item}` goes back too far; use L-1 to L-30")
            return {length - int(back[1])} - set(range(-30, 1))
        if near := re.fullmatch(r"(\d+)W", item):
            day = int(near[1])
            if not 1 <= day <= 31:
                raise self._refusal(f"`{item}`: there is no day {day}")
            return {_nearest(year, month, day, length)} if day <= length else set()
        return self._numbers(item, 1, 31)

    def _by_weekday(self, item: str, first: int, length: int) -> set[int]:
        """`first` is the month's first day of the week, 0 for Sunday."""
        if item == "L":
            item = "7"
        if nth := re.fullmatch(r"(\w+)#(\d)", item):
            if not 1 <= int(nth[2]) <= 5:
                raise self._refusal(f"`{item}`: a month has no weekday number {nth[2]}")
            weekday = self._number(nth[1], 1, 7, DAYS) - 1
            # May exceed the month (a fifth Friday); `_days_of` drops what is beyond its length.
            return {(weekday - first) % 7 + 1 + 7 * (int(nth[2]) - 1)}
        if last := re.fullmatch(r"(\w+)L", item):
            weekday = self._number(last[1], 1, 7, DAYS) - 1
            return {max(range((weekday - first) % 7 + 1, length + 1, 7))}
        wanted = self._numbers(item, 1, 7, DAYS)
        return {day for day in range(1, length + 1) if (first + day - 1) % 7 + 1 in wanted}

    # --- numbers ----------------------------------------------------------------------------

    def _numbers(self, field: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
        found: set[int] = set()
        for item in field.split(","):
            parts = _ITEM.fullmatch(item)
            if parts is None or (parts["low"] == "*" and parts["high"]):
                raise self._refusal(f"`{item}` cannot be read")
            step = int(parts["step"] or 1)
            if step < 1:
                raise self._refusal(f"`{item}`: a step is 1 or more")
            if parts["low"] == "*":
                begin, end = low, high
            else:
                begin = self._number(parts["low"], low, high, names)
                end = high if parts["step"] else begin
                if parts["high"]:
                    end = self._number(parts["high"], low, high, names)
            if end < begin:
                raise self._refusal(f"`{item}` runs backwards")
            found |= set(range(begin, end + 1, step))
        return found

    def _number(self, text: str, low: int, high: int, names: tuple[str, ...]) -> int:
        if text in names:
            return names.index(text) + low
        if not text.isdecimal() or not low <= int(text) <= high:
            raise self._refusal(f"`{text}` is not from {low} to {high}")
        return int(text)

    def _refusal(self, why: str) -> Misuse:
        return Misuse(f"`cron({self._expression})` is not an AWS cron expression: {why}")


def _nearest(year: int, month: int, day: int, length: int) -> int:
    """The weekday nearest to a day, within its month."""
    match date(year, month, day).weekday():
        case 5:
            return day - 1 if day > 1 else day + 2
        case 6:
            return day + 1 if day < length else day - 2
        case _:
            return day


def _offset(at: datetime, zone: tzinfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _change(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The first second after `low` at which the clock reads otherwise; it does at `high`."""
    before = _offset(low, zone)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if _offset(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high
