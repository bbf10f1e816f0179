"""Many appointments on one agenda: together in one change, each for itself when one goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.errors import DiskFull, Fenced, HeadraceError, Invalid
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.sources.base import Draft, SourceAppender
from headrace.sources.schedules import schedule_queue
from headrace.sources.schedules.schedule_queue import ScheduleQueue
from headrace.storage.kv.base import Applied
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.virtual_time import EPOCH, VirtualClock, VirtualLoop

SECOND = 1_000_000


class Recording(MemoryStorage):
    """The twin, counting what reaches it, and troubled where a test says so."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.changes: list[Change] = []
        self.trouble: Callable[[Change], HeadraceError | None] = lambda change: None

    async def apply(self, change: Change) -> Applied:
        if (error := self.trouble(change)) is not None:
            raise error
        applied = await super().apply(change)
        self.changes.append(change)
        return applied


class Dates:
    """An appointment at given seconds of virtual time."""

    def __init__(
        self, appender: SourceAppender, seconds: list[float], *, breaks: bool = False
    ) -> None:
        self.appender = appender
        self.breaks = breaks
        self.left = [EPOCH + round(second * SECOND) for second in seconds]
        self.ready: list[int] = []

    @property
    def due(self) -> int | None:
        return self.left[0] if self.left else None

    def prepare(self) -> None:
        self.ready.append(self.left[0])

    def draft(self, now: int) -> Draft:
        assert self.left[0] <= now
        if self.breaks:
            raise Invalid("what it wants to say cannot be written down")
        event = Event(b"1", time=self.left[0])
        return self.appender.draft([event], checkpoint=self.left[0].to_bytes(8))

    def said(self) -> None:
        del self.left[0]


class Rig:
    """An agenda over the twins, on virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.storage = Recording(self.clock)
        self.broker = MemoryBroker(self.storage, clock=self.clock)
        self.faults: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: self.faults.append(error))
        self.agenda = ScheduleQueue(self.clock, self.tasks)

    async def dates(self, name: str, *seconds: float, **more: Any) -> Dates:
        stream = f"_{name}"
        await self.broker.declare(StreamSpec(name=stream))
        appender = SourceAppender(self.storage, self.broker, self.storage.apply, stream=stream)
        await appender.checkpoint()
        return Dates(appender, list(seconds), **more)

    async def said(self, name: str) -> list[float]:
        chunks = await self.broker.fetch(f"_{name}", 0, 0, events=1_000, size=1 << 20)
        return [
            ((event.time or 0) - EPOCH) / SECOND for chunk in chunks for event in chunk.events()
        ]

    def firings(self) -> list[int]:
        """The number of events of each change that had any."""
        return [len(change.appends) for change in self.storage.changes if change.appends]

    @asynccontextmanager
    async def keeping(self, *dates: Dates) -> AsyncIterator[list[asyncio.Task[None]]]:
        kept = [self.loop.create_task(self.agenda.keep(each)) for each in dates]
        try:
            yield kept
        finally:
            for each in kept:
                each.cancel()
            await asyncio.gather(*kept, return_exceptions=True)
            await self.tasks.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    loop = VirtualLoop()
    yield Rig(loop)
    loop.close()


def run(rig: Rig, work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    rig.loop.drive(whole())
    assert not rig.faults


def test_a_hundred_due_in_one_instant_are_one_change_and_none_is_early(rig: Rig) -> None:
    async def work() -> None:
        dates = [await rig.dates(f"n{number}", 60, 120) for number in range(100)]
        async with rig.keeping(*dates) as kept:
            await rig.clock.sleep(59.999)
            assert rig.firings() == []
            await asyncio.gather(*kept)
            assert rig.clock.now() - EPOCH == 120 * SECOND
            assert rig.firings() == [100, 100]
            assert await rig.said("n42") == [60, 120]

    run(rig, work)


def test_what_is_to_be_said_is_made_ready_before_it_is_due(rig: Rig) -> None:
    async def work() -> None:
        dates = await rig.dates("one", 60, 120)
        async with rig.keeping(dates):
            await rig.clock.sleep(1)
            assert dates.ready == [EPOCH + 60 * SECOND]
            await rig.clock.sleep(60)
            assert dates.ready == [EPOCH + 60 * SECOND, EPOCH + 120 * SECOND]

    run(rig, work)


def test_an_appointment_that_is_made_later_but_due_earlier_is_kept_in_time(rig: Rig) -> None:
    async def work() -> None:
        async with rig.keeping(await rig.dates("late", 3_600)):
            await rig.clock.sleep(1)
            async with rig.keeping(await rig.dates("soon", 5)) as [soon]:
                await soon
                assert rig.clock.now() - EPOCH == 5 * SECOND

    run(rig, work)


def test_no_change_holds_more_than_its_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_queue, "MAX_TOGETHER", 8)

    async def work() -> None:
        dates = [await rig.dates(f"n{number}", 1) for number in range(20)]
        async with rig.keeping(*dates) as kept:
            await asyncio.gather(*kept)
            assert rig.firings() == [8, 8, 4]

    run(rig, work)


def test_one_that_another_node_has_kept_fails_alone(rig: Rig) -> None:
    async def work() -> None:
        dates = [await rig.dates(f"n{number}", 60) for number in range(10)]
        other = SourceAppender(rig.storage, rig.broker, rig.storage.apply, stream="_n3")
        await other.emit([Event(b"1", time=EPOCH + 60 * SECOND)], checkpoint=b"theirs")
        async with rig.keeping(*dates) as kept:
            ends = await asyncio.gather(*kept, return_exceptions=True)
            assert [type(end) for end in ends] == [
                Fenced if number == 3 else type(None) for number in range(10)
            ]
            for number in range(10):
                assert await rig.said(f"n{number}") == [60]

    run(rig, work)


def test_one_that_cannot_say_what_it_wants_fails_alone(rig: Rig) -> None:
    async def work() -> None:
        dates = [await rig.dates(f"n{number}", 60, breaks=number == 3) for number in range(10)]
        async with rig.keeping(*dates) as kept:
            ends = await asyncio.gather(*kept, return_exceptions=True)
            assert [isinstance(end, Invalid) for end in ends] == [n == 3 for n in range(10)]
            assert rig.firings() == [9]

    run(rig, work)


def test_a_full_disk_is_reported_to_each_and_moves_nobody(rig: Rig) -> None:
    async def work() -> None:
        dates = [await rig.dates(f"n{number}", 60) for number in range(10)]
        rig.storage.trouble = lambda change: DiskFull("disk full (planned by the test)")
        async with rig.keeping(*dates) as kept:
            ends = await asyncio.gather(*kept, return_exceptions=True)
            assert {type(end) for end in ends} == {DiskFull}
            assert all(each.due == EPOCH + 60 * SECOND for each in dates)
        assert rig.firings() == []

    run(rig, work)


def test_one_that_has_left_says_nothing_more(rig: Rig) -> None:
    async def work() -> None:
        stays, leaves = await rig.dates("stays", 60), await rig.dates("leaves", 60)
        async with rig.keeping(stays, leaves) as [kept, left]:
            await rig.clock.sleep(1)
            left.cancel()
            await kept
            assert await rig.said("leaves") == []

    run(rig, work)


def test_entries_that_have_left_are_let_go(rig: Rig) -> None:
    async def work() -> None:
        async with rig.keeping(await rig.dates("stays", 1e6)):
            for number in range(50):
                far = await rig.dates(f"n{number}", 9e6)
                leaving = rig.loop.create_task(rig.agenda.keep(far))
                await rig.clock.sleep(0.1)
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            assert rig.agenda._noted <= 2
            assert sum(map(len, rig.agenda._pages.values())) <= 2
            assert len(rig.agenda._dates) <= 2

    run(rig, work)


def test_an_agenda_without_appointments_runs_nothing(rig: Rig) -> None:
    async def work() -> None:
        dates = await rig.dates("one", 3_600)
        leaving = rig.loop.create_task(rig.agenda.keep(dates))
        await rig.clock.sleep(1)
        assert len(rig.tasks) == 1
        leaving.cancel()
        await rig.clock.sleep(0.1)
        assert len(rig.tasks) == 0

    run(rig, work)


def test_a_clock_that_is_set_back_makes_it_wait_for_the_date_again(rig: Rig) -> None:
    async def work() -> None:
        async with rig.keeping(await rig.dates("one", 60)) as [kept]:
            await rig.clock.sleep(59)
            rig.clock.set_back(30)
            await rig.clock.sleep(30)
            assert rig.firings() == []
            await kept
            assert rig.clock.now() - EPOCH == 60 * SECOND

    run(rig, work)
