"""Keeps to a timetable: at the next time it says that it has come, and remembers the one after.

Waiting is the schedule queue's affair. The next time is stored with the event that says so, in one change: a node that dies in between has
fired or has not, and whoever comes next goes on from there. Times that are past when nobody was
there are treated as the schedule's `misfire` says. A wall clock that is set back repeats nothing,
for the stored time only moves forward.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from headrace.environment.clock import Clock
from headrace.model.errors import Fenced
from headrace.model.event import Event
from headrace.model.triggers.schedules import At, Cron, Every, Schedule
from headrace.sources.base import Draft, SourceAppender
from headrace.sources.schedules.schedule_queue import ScheduleQueue
from headrace.sources.schedules.timetable import Timetable, timetable_of

EVENT_TYPE: Final = "headrace.schedule"
GRACE_US: Final = 60_000_000
"""A time that is this little past still counts as kept, and is never a misfire."""
MAX_MISFIRES: Final = 1_000
"""Missed times that `misfire="all"` makes up for: the latest."""
MISSED_HEADER: Final = "headrace-missed"


class ScheduleState(msgspec.Struct, frozen=True):
    """What is remembered of a schedule.

    Attributes:
        of: The schedule it belongs to; a changed one begins anew.
        next: When it fires next (µs since the epoch); None where it never will.
        fired: The latest time it fired for; 0 where it has not yet.
    """

    of: str
    next: int | None
    fired: int = 0


class ScheduleSource:
    """The source of one `Cron`, `Every` or `At`."""

    def __init__(self, schedule: Schedule, clock: Clock, agenda: ScheduleQueue) -> None:
        self._schedule = schedule
        self._times = timetable_of(schedule)
        self._clock = clock
        self._agenda = agenda

    async def run(self, outlet: SourceAppender) -> None:
        """Fire until the last time has come, or for ever."""
        while True:
            try:
                standing = await self._standing(outlet)
                await self._agenda.keep(
                    ScheduleKeeper(self._schedule, self._times, standing, outlet)
                )
            except Fenced:
                # Another node has fired; go on from what it remembered.
                continue
            return

    async def _standing(self, outlet: SourceAppender) -> ScheduleState:
        standing = decode_standing(await outlet.checkpoint())
        if standing is None or standing.of != fingerprint(self._schedule):
            now = self._clock.now()
            first = self._times.first(now)
            if first is None:
                # A moment that comes while a node starts, or is deployed for it, is kept as well.
                first = self._times.first(now - GRACE_US)
            standing = ScheduleState(fingerprint(self._schedule), first)
            await outlet.emit([], checkpoint=_encode(standing))
        return standing


class ScheduleKeeper:
    """A schedule as an appointment of the schedule queue; owned by its source's one run."""

    def __init__(
        self, schedule: Schedule, times: Timetable, standing: ScheduleState, outlet: SourceAppender
    ) -> None:
        self._schedule = schedule
        self._times = times
        self._outlet = outlet
        self._standing = self._next = standing
        self._in_time: tuple[Draft, ScheduleState] | None = None

    @property
    def due(self) -> int | None:
        """When it fires next."""
        return self._standing.next

    def prepare(self) -> None:
        """Find out what follows, and write down what to say of a time that is kept."""
        if self._in_time is None and self._standing.next is not None:
            self._in_time = self._drafted(self._standing.next)

    def draft(self, now: int) -> Draft:
        """What is to be said at `now`; what was made ready, unless something was missed."""
        self.prepare()
        assert self._in_time is not None and self._standing.next is not None  # noqa: S101, PT018 - it is due
        draft, self._next = self._in_time
        following = self._next.next
        if now - self._standing.next > GRACE_US or (following is not None and following <= now):
            draft, self._next = self._drafted(now)
        return draft

    def said(self) -> None:
        """Go on to the time after."""
        self._standing = self._next
        self._in_time = None

    def _drafted(self, now: int) -> tuple[Draft, ScheduleState]:
        events, after = due(self._schedule, self._times, self._standing, now, self._outlet.stream)
        return self._outlet.draft(events, checkpoint=_encode(after), is_guarded=True), after


def due(
    schedule: Schedule, times: Timetable, standing: ScheduleState, now: int, stream: str
) -> tuple[list[Event], ScheduleState]:
    """What is to be said at `now`, and what is remembered then. Pure."""
    assert standing.next is not None  # noqa: S101 - the caller has waited for it
    following = times.following(standing.next)
    if following is None or following > now:
        past = [standing.next]
    else:
        past = times.missed(standing.next, now, MAX_MISFIRES)
        following = times.following(past[-1])
    kept = [time for time in past if now - time <= GRACE_US]
    late = past[: len(past) - len(kept)]
    events: list[Event] = []
    if late and schedule.misfire == "once":
        events.append(event_of(schedule, late[-1], stream, missed=len(late)))
    elif schedule.misfire == "all":
        events += [event_of(schedule, time, stream, missed=1) for time in late]
    events += [event_of(schedule, time, stream) for time in kept]
    fired = kept[-1] if kept else late[-1] if events else standing.fired
    return events, ScheduleState(standing.of, following, fired)


def event_of(
    schedule: Schedule, time: int, stream: str, *, missed: int = 0, id: str | None = None
) -> Event:
    """The event that says that a schedule's time has come."""
    value: Any = schedule.payload
    if value is None:
        value = {"schedule": in_words(schedule), "time": written(time)}
    return Event(
        msgspec.json.encode(value),
        time=time,
        id=f"{stream}@{time}" if id is None else id,
        headers={MISSED_HEADER: str(missed)} if missed else None,
        type=EVENT_TYPE,
        source=stream,
    )


def in_words(schedule: Schedule) -> str:
    """The schedule as its author wrote it."""
    match schedule:
        case Cron(expression=expression, tz=tz):
            return expression if tz == "UTC" else f"{expression} {tz}"
        case Every():
            return f"every {schedule.seconds:.15g} s"
        case At(when=when, tz=tz, every=every):
            again = "" if every is None else f", then every {float(every):.15g} s"
            return f"at {when}{'' if tz == 'UTC' else ' ' + tz}{again}"


def fingerprint(schedule: Schedule) -> str:
    """What tells a changed timetable from the same one; policies and payloads may change."""
    return f"{schedule.__struct_config__.tag} {in_words(schedule)}"


def in_zone(time: int, tz: str) -> str:
    """A moment as ISO 8601 text, in a schedule's own zone."""
    return datetime.fromtimestamp(time / 1_000_000, ZoneInfo(tz)).isoformat()


def written(time: int) -> str:
    """A moment as ISO 8601 text, in UTC."""
    return datetime.fromtimestamp(time / 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def decode_standing(row: bytes | None) -> ScheduleState | None:
    """What was remembered; None where nothing was."""
    return None if row is None else msgspec.json.decode(row, type=ScheduleState)


def _encode(standing: ScheduleState) -> bytes:
    return msgspec.json.encode(standing)
