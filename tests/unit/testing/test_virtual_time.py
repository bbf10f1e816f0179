"""The loop whose clock jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from headrace.testing.virtual_time import EPOCH, Deadlock, Livelock, VirtualClock, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    found = VirtualLoop()
    yield found
    found.close()


def test_a_wait_of_three_days_takes_no_time(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)

    loop.drive(clock.sleep(3 * 86_400))

    assert clock.monotonic() == 3 * 86_400
    assert clock.now() == EPOCH + 3 * 86_400 * 1_000_000


def test_timers_fire_in_order_of_time_not_of_creation(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)
    seen: list[Any] = []

    async def note(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.monotonic()))

    async def both() -> None:
        await asyncio.gather(note("late", 2.0), note("early", 1.0))

    loop.drive(both())

    assert seen == [("early", 1.0), ("late", 2.0)]


def test_a_caller_that_no_task_will_wake_learns_which_tasks_wait(loop: VirtualLoop) -> None:
    async def wait_for_nothing() -> None:
        await loop.create_future()

    with pytest.raises(Deadlock, match=r"main waits in .*wait_for_nothing"):
        loop.drive(wait_for_nothing())


def test_a_loop_that_never_lets_time_pass_is_stopped() -> None:
    loop = VirtualLoop(max_steps=100)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the very fault that is looked for
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="100 steps"):
        loop.drive(spin())
    loop.close()


def test_time_passes_no_further_than_it_is_driven(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)
    seen: list[Any] = []

    async def tick() -> None:
        while True:
            await clock.sleep(10.0)
            seen.append(clock.monotonic())

    task = loop.create_task(tick())
    loop.run_for(25.0)
    assert seen == [10.0, 20.0]
    assert clock.monotonic() == 25.0
    task.cancel()
    assert loop.run_until_idle(1.0)


def test_idle_means_nothing_is_scheduled_any_more(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)
    loop.create_task(clock.sleep(50.0))

    assert not loop.run_until_idle(10.0)
    assert loop.run_until_idle(100.0)
    assert clock.monotonic() == 50.0


def test_a_timeout_is_virtual_too(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)

    async def too_slow() -> None:
        await clock.timeout(clock.sleep(100.0), 5.0)

    with pytest.raises(TimeoutError):
        loop.drive(too_slow())
    assert clock.monotonic() == 5.0


def test_the_wall_clock_can_be_wrong_while_durations_stay_right(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)

    clock.set_back(3_600)

    assert clock.now() == EPOCH - 3_600_000_000
    assert clock.monotonic() == 0.0


def _order(seed: int) -> list[int]:
    loop = VirtualLoop(shuffle=Random(seed))
    seen: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    async def all_of_them() -> None:
        await asyncio.gather(*(note(number) for number in range(8)))

    loop.drive(all_of_them())
    loop.close()
    return seen


def test_a_seed_decides_the_order_of_what_is_ready() -> None:
    assert _order(1) == _order(1)
    assert len({tuple(_order(seed)) for seed in range(10)}) > 5
    assert sorted(_order(3)) == list(range(8))
