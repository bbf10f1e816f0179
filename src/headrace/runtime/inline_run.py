"""A run of the inline runtime, and the run that was sent ahead behind it: a task each.

In: invocations. Out: outcomes, in an order in which instances could give them. The invocations' tokens decide which run
accepts another one, which is taken back, and which ends before the run before it was reported: a simulation covers all
of these, and repeats them with the same seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.runtime.base import RECALLED, Waiter

TAKES_ANOTHER, HURRIES = 0b01, 0b10
TAKEN_BACK = 0b111_00


class InlineRun:
    """Implements `runtime.base.Run`."""

    def __init__(
        self,
        work: Callable[[Invocation], Awaitable[Outcome]],
        invocation: Invocation,
        done: Waiter,
        before: InlineRun | None,
    ) -> None:
        self._work = work
        self._invocation = invocation
        self._done = done
        self._before = before
        self._following: InlineRun | None = None
        self._outcome: Outcome | None = None
        self._has_ended = asyncio.Event()
        self._is_reported = asyncio.Event()
        if before is not None:
            before._following = self
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._serve(), name=f"run {invocation.function}")

    @property
    def takes_another(self) -> bool:
        """Return whether one more can be sent ahead now."""
        ended = self._has_ended.is_set() or self._following is not None
        return not ended and bool(self._invocation.token & TAKES_ANOTHER)

    def cancel(self) -> bool:
        """Cancel its task: unlike in an instance, nothing runs on after that."""
        return self.task.cancel()

    async def _serve(self) -> None:
        try:
            try:
                self._outcome = outcome = await self._run()
            finally:
                self._has_ended.set()
            following = self._following
            if following is not None and following._invocation.token & HURRIES:
                # As with an instance whose two results arrive in one read: this outcome is
                # reported after the next run has ended.
                await following._has_ended.wait()
            if self._before is not None:
                await self._before._is_reported.wait()
            if not self._done.done():
                self._done.set_result(outcome)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - also what ends the host: the caller must not wait for ever
            if not self._done.done():
                self._done.set_exception(error)
        finally:
            self._is_reported.set()

    async def _run(self) -> Outcome:
        before = self._before
        if before is not None:
            await before._has_ended.wait()
            died = before._outcome is None or before._outcome.returned is None
            if died or not self._invocation.token & TAKEN_BACK:
                return RECALLED
        return await self._work(self._invocation)
