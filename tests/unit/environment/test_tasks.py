"""Owned tasks end when their group closes, whatever the code below makes of a cancellation."""

from __future__ import annotations

import asyncio

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks


async def test_a_member_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    tasks = Tasks(lambda name, error: None)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

    member = tasks.start(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.close(), 10)
    assert member.cancelled()


async def test_a_timeout_does_not_lose_a_cancellation_that_comes_as_the_awaited_thing_ends() -> (
    None
):
    clock, news = SystemClock(), asyncio.Event()
    rounds = 0

    async def watch() -> None:
        nonlocal rounds
        while True:
            await clock.timeout(news.wait(), 10)
            news.clear()
            rounds += 1

    task = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    news.set()
    task.cancel()
    await asyncio.wait((task,), timeout=5)
    assert task.cancelled()
    assert rounds == 0
