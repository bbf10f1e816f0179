"""Schedules for operators: when each fires next, and firing one by hand.

In: the deployed functions and the checkpoints of their sources. Out: rows, and an event on the schedule's stream. Firing by
hand does not change the timetable.
"""

from __future__ import annotations

import msgspec

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.time_slices import Slices
from headrace.model.effects import Change, Space
from headrace.model.errors import Unknown
from headrace.model.record import Append, encode_events
from headrace.model.triggers.base import listeners
from headrace.model.triggers.schedules import At, Cron, Every, Schedule
from headrace.sources.base import checkpoint_key
from headrace.sources.schedules.source import decode_state, event_of, in_words


class ScheduleRow(msgspec.Struct, frozen=True):
    """One schedule of one function.

    Attributes:
        function: The function that it triggers.
        number: Its index among the function's schedules, from 0.
        kind: `cron`, `every` or `at`.
        schedule: The schedule as its author wrote it.
        misfire: The policy for missed times.
        next: When it fires next (µs since the epoch); None if it does not fire again.
        fired: The time for which it last fired; None if it has not fired yet.
        tz: Its time zone.
    """

    function: str
    number: int
    kind: str
    schedule: str
    misfire: str
    next: int | None
    fired: int | None
    tz: str = "UTC"


class Schedules:
    """Lists and fires schedules. One per node."""

    def __init__(
        self,
        supervisor: PartitionSupervisor,
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._supervisor = supervisor
        self._committer = supervisor.committer
        self._storage = self._committer.storage
        self._clock = clock
        self._entropy = entropy

    async def rows(self, function: str | None = None) -> list[ScheduleRow]:
        """Return every schedule, or those of one function.

        Raises:
            Unknown: There is no such function.
        """
        names = sorted(self._supervisor.functions) if function is None else [function]
        rows: list[ScheduleRow] = []
        async for name in Slices(self._clock).over(names):
            if function is None and name not in self._supervisor.functions:
                continue  # withdrawn meanwhile
            for number, (schedule, stream) in enumerate(self._of(name)):
                rows.append(await self._row(name, number, schedule, stream))
        return rows

    async def fire(self, function: str, number: int = 0) -> str:
        """Fire a schedule now, in addition to its timetable; return the event's id.

        Raises:
            Unknown: The function does not exist, or has no such schedule.
        """
        found = self._of(function)
        if not 0 <= number < len(found):
            count = f"has {len(found)} schedules, from 0" if found else "has no schedule"
            raise Unknown(f"`{function}` {count}; there is no number {number}")
        schedule, stream = found[number]
        # An id of its own kind: the id of a scheduled time would make the timetable's event a
        # duplicate.
        name = f"{stream}@by-hand-{self._entropy.token(8)}"
        event = event_of(schedule, self._clock.now(), stream, id=name)
        append = Append(stream, 0, 1, encode_events([event]), ids=(name,))
        await self._committer.commit(Change(appends=(append,)))
        return name

    def _of(self, function: str) -> list[tuple[Schedule, str]]:
        return [
            (trigger, reads.streams[0])
            for trigger, reads in listeners(function, self._supervisor.known(function).triggers)
            if isinstance(trigger, (Cron, Every, At))
        ]

    async def _row(self, name: str, number: int, schedule: Schedule, stream: str) -> ScheduleRow:
        timetable = decode_state(await self._storage.get(Space.META, checkpoint_key(stream)))
        return ScheduleRow(
            function=name,
            number=number,
            kind=str(schedule.__struct_config__.tag),
            schedule=in_words(schedule),
            misfire=schedule.misfire,
            next=None if timetable is None else timetable.next,
            # The checkpoint stores 0 for a schedule that has not fired yet.
            fired=timetable.fired or None if timetable is not None else None,
            tz=getattr(schedule, "tz", "UTC"),
        )
