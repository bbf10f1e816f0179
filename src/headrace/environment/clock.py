"""Clocks: the only source of time.

On virtual time the event loop itself jumps, so every wait is the loop's. Waits are relative to the
loop's monotonic time; dates come from `now`, the wall clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """The only source of time; passed to every object that needs it."""

    def now(self) -> int:
        """Return the wall clock, in microseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences have a meaning."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        """Return the awaitable's result.

        Raises:
            TimeoutError: It took longer than `seconds`; it has been cancelled.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        """Return the wall clock, in microseconds since the epoch."""
        return time.time_ns() // 1_000

    # CLOCK_MONOTONIC, in seconds; read several times per event, so without a method in between.
    monotonic = staticmethod(time.monotonic)

    def pause(self, seconds: float) -> None:
        """Wait without a loop; for commands, which have none."""
        time.sleep(seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(seconds)

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        """Bound a wait on the running loop."""
        # Not `wait_for`: before Python 3.12 it loses a cancellation that arrives in the same
        # iteration of the loop as the result, and the caller that closes the task waits for ever.
        async with asyncio.timeout(seconds):
            return await awaitable
