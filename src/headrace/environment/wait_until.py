"""Waits for a date. The wall clock may be set during a wait, so a wait is cut into short slices.

A clock that knows when it is set (virtual time) waits in one piece and is a `CalendarClock`; a node
that only waits for a date counts as idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from headrace.environment.clock import Clock

SLICE_S: Final = 1.0


@runtime_checkable
class CalendarClock(Protocol):
    """A clock that can wait for a date by itself."""

    async def until(self, when: int, woken: asyncio.Event | None = None) -> None:
        """Return once `now()` is `when` or later, or `woken` is set."""
        ...

    def alarm(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` in so many seconds; until then the wait does not count as work."""
        ...


def call_on_date(clock: Clock, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Call `callback` in so many seconds; until then, as with a wait for a date, it does not count as work."""
    if isinstance(clock, CalendarClock):
        return clock.alarm(seconds, callback)
    return asyncio.get_running_loop().call_later(seconds, callback)


async def wait_until(clock: Clock, when: int, woken: asyncio.Event | None = None) -> None:
    """Return once the wall clock is at `when` (µs since the epoch) or later, never before.

    Args:
        clock: The source of time.
        when: The date.
        woken: Ends the wait when it is set.
    """
    if isinstance(clock, CalendarClock):
        await clock.until(when, woken)
        return
    while (left := when - clock.now()) > 0 and not (woken is not None and woken.is_set()):
        # A wait in one piece would be by the monotonic clock, which does not follow a change of
        # the wall clock.
        slice_s = min(left / 1_000_000, SLICE_S)
        if woken is None:
            await clock.sleep(slice_s)
            continue
        # The end of a slice: the wall clock is compared again.
        with suppress(TimeoutError):
            await clock.timeout(woken.wait(), slice_s)
