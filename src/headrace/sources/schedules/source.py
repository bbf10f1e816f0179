"""Fires a schedule: at each of its times it appends an event, and stores the time after.

The schedule queue waits. The next time is stored in one change with the event: a node that dies in between has
fired or has not, and the next one continues from there. Times that passed while no node
ran are treated as the schedule's `misfire` says. A wall clock that is set back repeats nothing,
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
# A busy node or a restart delays a time by seconds; that is not what `misfire` is about.
GRACE_US: Final = 60_000_000
"""A time that is this little past still counts as kept, and is never a misfire."""
MAX_MISFIRES: Final = 1_000
"""Missed times that `misfire="all"` makes up for: the latest."""
MISSED_HEADER: Final = "headrace-missed"


class ScheduleState(msgspec.Struct, frozen=True):
    """The checkpoint of a schedule.

    Attributes:
        of: The schedule it belongs to; a changed one starts again.
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

    async def run(self, appender: SourceAppender) -> None:
        """Fire until the last time has come, or for ever."""
        while True:
            try:
                state = await self._state(appender)
                await self._agenda.keep(
                    ScheduleKeeper(self._schedule, self._times, state, appender)
                )
            except Fenced:
                # Another node has fired; continue from its checkpoint.
                continue
            return

    async def _state(self, appender: SourceAppender) -> ScheduleState:
        state = decode_state(await appender.checkpoint())
        if state is None or state.of != fingerprint(self._schedule):
            now = self._clock.now()
            first = self._times.first(now)
            if first is None:
                # A moment that comes while a node starts, or is deployed for it, is kept as well.
                first = self._times.first(now - GRACE_US)
            state = ScheduleState(fingerprint(self._schedule), first)
            # Stored before the first time comes: a node that starts later must see that it was
            # missed.
            await appender.emit([], checkpoint=_encode(state))
        return state


class ScheduleKeeper:
    """A schedule as an appointment of the schedule queue; owned by its source's one run."""

    def __init__(
        self, schedule: Schedule, times: Timetable, state: ScheduleState, appender: SourceAppender
    ) -> None:
        self._schedule = schedule
        self._times = times
        self._appender = appender
        self._state = self._next = state
        self._in_time: tuple[Draft, ScheduleState] | None = None

    @property
    def due(self) -> int | None:
        """The time at which it fires next."""
        return self._state.next

    def prepare(self) -> None:
        """Compute the next time, and the event of one that is met on time."""
        if self._in_time is None and self._state.next is not None:
            self._in_time = self._drafted(self._state.next)

    def draft(self, now: int) -> Draft:
        """The draft for `now`; the prepared one, unless a time was missed."""
        self.prepare()
        assert self._in_time is not None and self._state.next is not None  # noqa: S101, PT018 - it is due
        draft, self._next = self._in_time
        following = self._next.next
        # Prepared for a time that is met; a late one may stand for several times, and is computed
        # again.
        if now - self._state.next > GRACE_US or (following is not None and following <= now):
            draft, self._next = self._drafted(now)
        return draft

    def said(self) -> None:
        """Continue with the time after."""
        self._state = self._next
        self._in_time = None

    def _drafted(self, now: int) -> tuple[Draft, ScheduleState]:
        # Guarded: the check of the checkpoint alone keeps a second event from being appended, so
        # no id is looked up.
        events, after = due(self._schedule, self._times, self._state, now, self._appender.stream)
        return self._appender.draft(events, checkpoint=_encode(after), is_guarded=True), after


def due(
    schedule: Schedule, times: Timetable, state: ScheduleState, now: int, stream: str
) -> tuple[list[Event], ScheduleState]:
    """The events to append at `now`, and the new checkpoint. Pure."""
    assert state.next is not None  # noqa: S101 - the caller has waited for it
    following = times.following(state.next)
    if following is None or following > now:
        past = [state.next]
    else:
        past = times.missed(state.next, now, MAX_MISFIRES)
        # From the last missed time: the pause does not move the timetable.
        following = times.following(past[-1])
    kept = [time for time in past if now - time <= GRACE_US]
    late = past[: len(past) - len(kept)]
    events: list[Event] = []
    if late and schedule.misfire == "once":
        events.append(event_of(schedule, late[-1], stream, missed=len(late)))
    elif schedule.misfire == "all":
        events += [event_of(schedule, time, stream, missed=1) for time in late]
    events += [event_of(schedule, time, stream) for time in kept]
    fired = kept[-1] if kept else late[-1] if events else state.fired
    return events, ScheduleState(state.of, following, fired)


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
        # By the time it is for, not the time it fired: handlers can recognise a repetition.
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
    """Text that changes with the timetable; policies and payloads may change without it."""
    return f"{schedule.__struct_config__.tag} {in_words(schedule)}"


def in_zone(time: int, tz: str) -> str:
    """A moment as ISO 8601 text, in a schedule's own zone."""
    return datetime.fromtimestamp(time / 1_000_000, ZoneInfo(tz)).isoformat()


def written(time: int) -> str:
    """A moment as ISO 8601 text, in UTC."""
    return datetime.fromtimestamp(time / 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def decode_state(row: bytes | None) -> ScheduleState | None:
    """Decode a checkpoint; None where there is none."""
    return None if row is None else msgspec.json.decode(row, type=ScheduleState)


def _encode(state: ScheduleState) -> bytes:
    return msgspec.json.encode(state)
