"""Sleep of a partition worker: until records arrive, a commit ends, a task wakes it, or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.storage.log.base import Reader


class Wakeup:
    """One sleeper; any task on the loop may wake it."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the current wait, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(
        self,
        seconds: float | None,
        readers: Sequence[Reader] = (),
        commits: Iterable[asyncio.Task[Any]] = (),
    ) -> None:
        """Return when there may be something to do; spurious returns are possible."""
        loop = asyncio.get_running_loop()
        # A future per wait: a wake-up without a waiter is dropped, so callers check their
        # condition first.
        self._waiter = waiter = loop.create_future()

        def woken(_: asyncio.Task[Any]) -> None:
            if not waiter.done():
                waiter.set_result(None)

        for reader in readers:
            reader.watch(waiter)
        # An ended commit would end every wait at once, while an older one is still in flight.
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
