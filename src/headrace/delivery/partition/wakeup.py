"""How a partition worker sleeps: until records come, a commit ends, somebody wakes it, or time has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.storage.log.base import Reader


class Wakeup:
    """One sleeper; anybody on the loop may wake it."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the wait that is on, if one is."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(
        self,
        seconds: float | None,
        readers: Sequence[Reader] = (),
        commits: Iterable[asyncio.Task[Any]] = (),
    ) -> None:
        """Return when there may be something to do; it may be for nothing."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()

        def woken(_: asyncio.Task[Any]) -> None:
            if not waiter.done():
                waiter.set_result(None)

        for reader in readers:
            reader.watch(waiter)
        # A commit that has ended behind one that has not would wake every wait at once.
        watched = [commit for commit in commits if not commit.done()]
        for commit in watched:
            commit.add_done_callback(woken)
        alarm = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if alarm is not None:
                alarm.cancel()
            for commit in watched:
                commit.remove_done_callback(woken)
