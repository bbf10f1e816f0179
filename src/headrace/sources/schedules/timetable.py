"""A schedule's times as numbers: what comes next, and what was missed. Pure.

In: a `Cron`, `Every` or `At`, and moments in microseconds since the epoch. Out: a `Timetable`, or
`Misuse` where the expression or the time zone cannot be read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from headrace.model.errors import Misuse
from headrace.model.triggers.schedules import At, Cron, Every, Schedule
from headrace.sources.schedules.aws_cron import AwsCron
from headrace.sources.schedules.local_time import on_the_clock
from headrace.sources.schedules.unix_cron import UnixCron

COUNTED: Final = 2_000
"""Missed times are counted one by one up to here."""
# Integer arithmetic throughout: `timestamp()` is a float, and loses microseconds.
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UNITS: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
_RATE: Final = re.compile(r"(\d+) (minute|hour|day)(s?)")


class Timetable(Protocol):
    """The times of one schedule."""

    def first(self, now: int) -> int | None:
        """The first time of a schedule that begins now; None where there is none."""
        ...

    def following(self, last: int) -> int | None:
        """The time after `last`, which was one of them; None where that was the end."""
        ...

    def missed(self, due: int, now: int, keep: int) -> list[int]:
        """The latest times, `keep` at most, from `due` (one of them) to `now`, ascending."""
        ...


class _Expression(Protocol):
    def times(self, after: datetime) -> Iterator[datetime]: ...


class CalendarTimes:
    """Times that an expression gives."""

    def __init__(self, expression: _Expression) -> None:
        self._expression = expression

    def first(self, now: int) -> int | None:
        """The next time."""
        return self.following(now)

    def following(self, last: int) -> int | None:
        """The next time."""
        return next(self._times(last), None)

    def missed(self, due: int, now: int, keep: int) -> list[int]:
        """Counted through; where there are too many, only the last stretch is."""
        found = self._until(now, due - 1, keep)
        while found[-1] <= now and (after := self.following(found[-1])) and after <= now:
            # So many were missed that counting all would block the loop.
            span = max((found[-1] - found[0]) * 2, 1_000_000)
            closer = self._until(now, max(now - span, found[-1]), keep)
            found = (found + closer)[-keep:]
        return found

    def _until(self, now: int, after: int, keep: int) -> list[int]:
        found: deque[int] = deque(maxlen=keep)
        for count, time in enumerate(self._times(after)):
            if time > now or count >= COUNTED:
                break
            found.append(time)
        return list(found)

    def _times(self, after: int) -> Iterator[int]:
        start = _EPOCH + after * _MICROSECOND
        return ((time - _EPOCH) // _MICROSECOND for time in self._expression.times(start))


class EvenTimes:
    """Times at equal distances; `begin` None means that the first is one period after the start."""

    def __init__(self, period_s: float | None, begin: int | None) -> None:
        self._period = None if period_s is None else round(period_s * 1_000_000)
        self._begin = begin

    def first(self, now: int) -> int | None:
        """The given moment; where that is past, the next on its grid; else a period from now."""
        if self._begin is None:
            return None if self._period is None else now + self._period
        if self._begin > now:
            return self._begin
        if self._period is None:
            return None
        # On the grid of the first moment, so that a redeployment does not move the times.
        return now + self._period - (now - self._begin) % self._period

    def following(self, last: int) -> int | None:
        """One period later."""
        return None if self._period is None else last + self._period

    def missed(self, due: int, now: int, keep: int) -> list[int]:
        """By arithmetic, however many there are."""
        if self._period is None:
            return [due]
        # Computed, not counted: a period of a second over a year has 31 million.
        count = (now - due) // self._period + 1
        return [due + self._period * at for at in range(max(count - keep, 0), count)]


def timetable_of(schedule: Schedule) -> Timetable:
    """The times of `schedule`.

    Raises:
        Misuse: Its expression or time zone cannot be read.
    """
    match schedule:
        case Every():
            return EvenTimes(schedule.seconds, None)
        case At():
            period = None if schedule.every is None else float(schedule.every)
            return EvenTimes(period, _moment(schedule.when, zone_of(schedule.tz)))
        case Cron():
            return _of_expression(schedule.expression.strip(), zone_of(schedule.tz))


def zone_of(name: str) -> tzinfo:
    """The IANA time zone.

    Raises:
        Misuse: There is none of that name.
    """
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise Misuse(
            f'there is no time zone `{name}`; use an IANA name such as "Europe/Berlin" '
            "(package tzdata brings them where the system has none)"
        ) from error


def _of_expression(text: str, zone: tzinfo) -> Timetable:
    if not text.endswith(")"):
        return CalendarTimes(UnixCron(text, zone))
    kind, _, inner = text[:-1].partition("(")
    match kind:
        case "cron":
            return CalendarTimes(AwsCron(inner, zone))
        case "rate":
            return EvenTimes(_rate(inner), None)
        case "at":
            return EvenTimes(None, _moment(inner, zone))
        case _:
            raise Misuse(
                f"`{text}`: `{kind}` is unknown; AWS has `cron(...)`, `rate(...)`, `at(...)`"
            )


def _rate(inner: str) -> float:
    parts = _RATE.fullmatch(inner)
    count = int(parts[1]) if parts is not None else 0
    if parts is None or count < 1 or (count == 1) == bool(parts[3]):
        raise Misuse(
            f"`rate({inner})` is not an AWS rate; write `rate(1 minute)`, `rate(5 minutes)`, "
            "`rate(2 hours)` or `rate(7 days)`"
        )
    return float(count * _UNITS[parts[2]])


def _moment(text: str, zone: tzinfo) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misuse(f"`{text}` is not a moment; write such as `2026-12-24T18:00:00`") from error
    # `fromisoformat` reads a bare date as midnight; a schedule by mistake at midnight would go
    # unnoticed.
    if "T" not in text and " " not in text:
        raise Misuse(f"`{text}` says no time of day; write such as `{text}T18:00:00`")
    if moment.tzinfo is None:
        moment = on_the_clock(moment, zone)
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
