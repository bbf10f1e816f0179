"""Waiting for a date: never early, and not fooled by a wall clock that is set meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from headrace.environment.wait_until import SLICE_S, wait_until
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

T = TypeVar("T")


class SettableClock:
    """A clock whose wall part leaps at given sleeps."""

    def __init__(self, leaps: dict[int, float]) -> None:
        self.leaps = leaps
        self.slept: list[float] = []
        self._now = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += round((seconds + self.leaps.get(len(self.slept), 0.0)) * 1_000_000)

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        return await awaitable


async def test_a_wait_is_cut_into_slices_and_ends_on_time() -> None:
    clock = SettableClock({})
    await wait_until(clock, 3_500_000)
    assert clock.slept == [SLICE_S, SLICE_S, SLICE_S, 0.5]


async def test_a_clock_that_is_set_back_prolongs_the_wait() -> None:
    clock = SettableClock({2: -1.0})
    await wait_until(clock, 3_000_000)
    assert (sum(clock.slept), clock.now()) == (4.0, 3_000_000)


async def test_a_clock_that_leaps_ahead_ends_the_wait_within_a_slice() -> None:
    clock = SettableClock({1: 3_600.0})
    await wait_until(clock, 600_000_000)
    assert clock.slept == [SLICE_S]


async def test_a_date_that_is_past_is_not_waited_for() -> None:
    clock = SettableClock({})
    await wait_until(clock, 0)
    assert clock.slept == []


def test_on_virtual_time_a_year_is_one_step_and_counts_as_idle() -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop, epoch=0)
    year = 365 * 86_400
    task = loop.create_task(wait_until(clock, year * 1_000_000))
    assert loop.run_until_idle(10 * year)
    assert clock.now() == 0
    loop.run_for(year)
    assert task.done()
    loop.close()


def test_on_virtual_time_a_clock_that_is_set_moves_the_end() -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop, epoch=0)
    task = loop.create_task(wait_until(clock, 100_000_000))
    loop.run_for(50)
    clock.set_back(20)
    loop.run_for(60)
    assert not task.done()
    loop.run_for(10)
    assert task.done()
    loop.close()
