"""A run that was begun, in the hands of whoever may send another one after it.

In: an instance with a run in hand. Out: the run's outcome, and the same again for a run that is
sent ahead to that instance. Whether that pays is for the pool to say.
"""

from __future__ import annotations

import asyncio

from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.runtime.base import PromptInvoker
from headrace.runtime.pool import Pool
from headrace.runtime.process.instance import Instance
from headrace.runtime.states import Lost


class SentRun:
    """Implements `runtime.base.Begun`. Used by one task.

    Args:
        invocation: What runs.
        future: What comes of it.
        pool: Whose instance it is.
        instance: Where it runs.
        invoker: Runs an invocation anew that was lost without a fault of its own.
    """

    __slots__ = ("_future", "_instance", "_invocation", "_invoker", "_pool")

    def __init__(
        self,
        invocation: Invocation,
        future: asyncio.Future[Outcome | Lost],
        pool: Pool,
        instance: Instance,
        invoker: PromptInvoker,
    ) -> None:
        self._invocation = invocation
        self._future = future
        self._pool = pool
        self._instance = instance
        self._invoker = invoker

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        return not self._future.done() and self._pool.takes_ahead(self._instance)

    def follow(self, invocation: Invocation) -> SentRun:
        """Send it ahead."""
        future = self._instance.run_ahead(invocation)
        return SentRun(invocation, future, self._pool, self._instance, self._invoker)

    async def outcome(self) -> Outcome:
        """What came of it.

        Raises:
            Unavailable: It was lost, and no instance can be had to run it again.
        """
        outcome = await self._future
        if isinstance(outcome, Lost):
            return await self._invoker.invoke(self._invocation, lost=outcome.reason)
        return outcome
