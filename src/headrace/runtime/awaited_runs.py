"""Runs whose outcome is awaited, for whoever has a task of its own."""

from __future__ import annotations

import asyncio

from headrace.model.errors import HeadraceError
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.runtime.base import Run, Runtime, invoke


class AwaitedRun:
    """A run, and the future that is told what came of it. Used by one task."""

    __slots__ = ("_done", "_run", "_runtime")

    def __init__(self, runtime: Runtime, invocation: Invocation, after: Run | None = None) -> None:
        self._runtime = runtime
        self._done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._run = runtime.submit(invocation, self._done, after)

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        return self._run.takes_another

    def follow(self, invocation: Invocation) -> AwaitedRun:
        """Send it ahead."""
        return AwaitedRun(self._runtime, invocation, self._run)

    async def outcome(self) -> Outcome:
        """What came of it.

        Raises:
            Unavailable: No instance could be had for it.
        """
        try:
            return await self._done
        except asyncio.CancelledError:
            self._run.cancel()
            raise


class AwaitedRuns:
    """A runtime's runs, awaited."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def lead(self, invocation: Invocation) -> AwaitedRun | None:
        """Begin a run that others may follow; None where `invoke` says why not."""
        try:
            return AwaitedRun(self._runtime, invocation)
        except HeadraceError:
            return None

    async def invoke(self, invocation: Invocation) -> Outcome:
        """As `runtime.base.invoke`."""
        return await invoke(self._runtime.submit, invocation)

    async def close(self) -> None:
        """Close the runtime."""
        await self._runtime.close()
