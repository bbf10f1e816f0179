"""The queue of a node's schedules: one list per due time, one wait, one change for all that are due.

In: appointments, each with its next due time. Out: their events, appended together with their
checkpoints, so that a thousand due at one time cost one commit. Drafts are prepared while
nothing is due, since computing a calendar takes longer than appending an event. An appointment that
fails does not affect the others. It knows no calendar: dates come from the appointments.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import Final, Protocol

from headrace.environment.clock import Clock
from headrace.environment.tasks import Tasks
from headrace.environment.wait_until import wait_until
from headrace.model.errors import Unavailable
from headrace.sources.base import Draft, say

MAX_TOGETHER: Final = 1_024
"""Appointments and events that one change holds at most, but for the last appointment's own."""
MAX_TOGETHER_BYTES: Final = 4 << 20


class Appointment(Protocol):
    """Events to append at given times; owned by its source, used by the schedule queue meanwhile."""

    @property
    def due(self) -> int | None:
        """The next date, in microseconds since the epoch; None where there is none."""
        ...

    def prepare(self) -> None:
        """Prepare the draft for a date that is met on time. Safe to call twice."""
        ...

    def draft(self, now: int) -> Draft:
        """The draft for `now`, which is `due` or later. Safe to call twice."""
        ...

    def said(self) -> None:
        """Continue with the next date: the last draft is on the disk."""
        ...


class _Entry:
    """An appointment and the future that its source awaits."""

    __slots__ = ("appointment", "end")

    def __init__(self, appointment: Appointment, end: asyncio.Future[None]) -> None:
        self.appointment = appointment
        self.end = end

    def fail(self, error: Exception) -> None:
        if not self.end.done():
            self.end.set_exception(error)


class ScheduleQueue:
    """One per node. Its one task runs while there is an appointment.

    Used on the loop's thread; what it holds is bounded by the triggers that are deployed.
    """

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        # One list per date: a thousand appointments at one time are one entry of the heap.
        self._dates: list[int] = []
        self._pages: dict[int, list[_Entry]] = {}
        self._noted = 0
        self._unready: dict[_Entry, None] = {}
        self._live: set[_Entry] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._waits_for: int | None = None

    async def keep(self, appointment: Appointment) -> None:
        """Keep it at every date it has; return after the last.

        When it is cancelled, no later date is processed.

        Raises:
            Fenced: Another node has kept it; look at what it remembered, and begin again.
            DiskFull, Overloaded, Unavailable: As `say`.
        """
        end = asyncio.get_running_loop().create_future()
        entry = _Entry(appointment, end)
        self._live.add(entry)
        try:
            self._enter(entry)
            await end
        finally:
            # The entry stays in its list until its date comes or `_forget` rebuilds: searching the
            # lists would cost each removal.
            self._live.discard(entry)
            self._unready.pop(entry, None)
            self._forget()

    def _enter(self, entry: _Entry) -> None:
        """Note the next date, and see that the task waits for it."""
        due = entry.appointment.due
        if entry.end.done():
            return
        if due is None:
            entry.end.set_result(None)
            return
        self._note(due, [entry])
        self._unready[entry] = None
        if self._waits_for is not None:
            # The task must look again: this date may be earlier, and its draft must be prepared.
            self._stop()
        if self._keeper is None or self._keeper.done():
            self._keeper = self._tasks.start(self._run(), name="agenda")

    def _note(self, date: int, entries: list[_Entry]) -> None:
        page = self._pages.get(date)
        if page is None:
            self._pages[date] = entries
            heappush(self._dates, date)
        else:
            page += entries
        self._noted += len(entries)

    def _take_page(self) -> list[_Entry]:
        """All that falls on the next date."""
        entries = self._pages.pop(heappop(self._dates))
        self._noted -= len(entries)
        return entries

    def _stop(self) -> None:
        self._waits_for = None
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None

    def _forget(self) -> None:
        """Drop entries that have left, once they are the majority."""
        # Rebuilt only when most entries are gone, so the cost is shared by as many removals.
        if self._noted > 2 * len(self._live):
            pages, self._pages, self._dates, self._noted = self._pages, {}, [], 0
            for date, entries in pages.items():
                if left := [entry for entry in entries if entry in self._live]:
                    self._note(date, left)
        if not self._live and self._waits_for is not None:
            self._stop()

    async def _run(self) -> None:
        try:
            while self._dates:
                if self._dates[0] <= self._clock.now():
                    await self._say(self._gather(self._clock.now()))
                elif self._unready:
                    # One at a time, so that other tasks of the loop run in between.
                    self._make_ready(next(iter(self._unready)))
                    await self._clock.sleep(0)
                else:
                    self._waits_for = self._dates[0]
                    await wait_until(self._clock, self._waits_for)
                    self._waits_for = None
        except Exception as error:
            self._waits_for = None
            # Without this their sources would wait for ever on a task that has ended.
            for entry in self._live:
                entry.fail(error)
            raise

    def _make_ready(self, entry: _Entry) -> None:
        del self._unready[entry]
        try:
            entry.appointment.prepare()
        except Exception as error:  # noqa: BLE001 - given to its source
            entry.fail(error)

    def _gather(self, now: int) -> list[tuple[_Entry, Draft]]:
        """Take what is due from its pages, as much as one change may hold."""
        drafts: list[tuple[_Entry, Draft]] = []
        events = size = 0
        while self._dates and self._dates[0] <= now:
            date = self._dates[0]
            page = self._take_page()
            for place, entry in enumerate(page):
                if max(len(drafts), events) >= MAX_TOGETHER or size >= MAX_TOGETHER_BYTES:
                    # The rest of the date goes back: one change must not hold an unbounded number
                    # of events.
                    self._note(date, page[place:])
                    return drafts
                self._unready.pop(entry, None)
                if entry not in self._live or entry.end.done():
                    continue
                try:
                    draft = entry.appointment.draft(now)
                except Exception as error:  # noqa: BLE001 - given to its source
                    entry.fail(error)
                    continue
                for append in draft.appends:
                    events += append.count
                    size += len(append.body)
                drafts.append((entry, draft))
        return drafts

    async def _say(self, drafts: list[tuple[_Entry, Draft]]) -> None:
        """Commit all drafts; halve what is refused, until the one at fault is alone."""
        # A source may have been cancelled since the drafts were gathered: its trigger is gone.
        drafts = [drafted for drafted in drafts if drafted[0] in self._live]
        if not drafts:
            return
        try:
            await say([draft for _, draft in drafts])
        # Not halved: whether the change landed is unknown, and no single draft is at fault.
        except Unavailable as error:
            for entry, _ in drafts:
                entry.fail(error)
        except Exception as error:  # noqa: BLE001 - given to the source it concerns
            if len(drafts) == 1:
                drafts[0][0].fail(error)
            else:
                # A fenced or oversize draft is found in log2(n) commits, and the others land.
                middle = len(drafts) // 2
                await self._say(drafts[:middle])
                await self._say(drafts[middle:])
        else:
            for entry, _ in drafts:
                entry.appointment.said()
                self._enter(entry)
