"""Waiting for a date. The wall clock may be set while we wait, so a wait is cut into short slices.

A clock that knows when it is set (virtual time) waits in one piece and says so by being a
`Calendar`; a wait for a date is also what a node does when it has nothing to do.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from headrace.world.clock import Clock

SLICE_S: Final = 1.0


@runtime_checkable
class Calendar(Protocol):
    """A clock that can wait for a date by itself."""

    async def until(self, when: int) -> None:
        """Return once `now()` is `when` or later."""
        ...


async def wait_until(clock: Clock, when: int) -> None:
    """Return once the wall clock says `when` (µs since the epoch) or later, never before."""
    if isinstance(clock, Calendar):
        await clock.until(when)
        return
    while (left := when - clock.now()) > 0:
        await clock.sleep(min(left / 1_000_000, SLICE_S))
