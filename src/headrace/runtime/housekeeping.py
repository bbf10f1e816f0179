"""Periodic work of a fleet: timeouts, hibernation, eviction, memory, zygotes that hang or grow old.

It checks everything at every tick while a run is active, and otherwise waits until something
changes or is due. A new run is first checked after a tick, so that a check never delays an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from headrace.environment.clock import Clock
from headrace.environment.restart_backoff import Backoff
from headrace.environment.supervised_task import Supervised
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.runtime.budget import Budget
from headrace.runtime.deployment import Deployment
from headrace.runtime.process.instance import Instance
from headrace.runtime.process.memory_use import KernelKills
from headrace.runtime.states import InstanceState

TICK_S = 0.1
MOST_S = 2.0
"""The longest pause after an error: nothing else enforces timeouts."""


class Housekeeping:
    """Owned by the fleet.

    Args:
        clock: The clock.
        tasks: Starts its task.
        budget: Measures the instances' memory.
        kernel: Detects kills by the kernel.
        instances: All instances.
        deployments: Returns all deployments, retired ones too.
        close_retired: Closes retired deployments without instances.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        tasks: Tasks,
        budget: Budget,
        kernel: KernelKills,
        instances: Mapping[str, Instance],
        deployments: Callable[[], list[Deployment]],
        close_retired: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._budget = budget
        self._kernel = kernel
        self._instances = instances
        self._deployments = deployments
        self._close_retired = close_retired
        self._changed = asyncio.Event()
        self._task: Supervised | None = None
        self.rests = False
        """Whether it knows of no active run; then the start of a run must call `run_started`."""

    def start(self) -> None:
        """Start its task, if it does not run."""
        if self._task is None:
            backoff = Backoff(self._clock, least=TICK_S, most=MOST_S)
            self._task = self._tasks.supervise(self._run, name="fleet upkeep", backoff=backoff)

    def close(self) -> None:
        """Cancel its task."""
        if self._task is not None:
            self._task.task.cancel()

    def run_started(self) -> None:
        """Schedule a check after one tick, as a run was started."""
        self.rests = False
        asyncio.get_running_loop().call_later(TICK_S, self._changed.set)

    def changed(self) -> None:
        """Check now, as something has changed."""
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            # Set before the check: a run that starts during the awaits below calls `run_started`,
            # and its timeout is not missed.
            self.rests = True
            now = self._clock.monotonic()
            busy, wake = self._check(now)
            await self._close_retired()
            if busy:
                self.rests = False
                await self._clock.sleep(TICK_S)
                continue
            try:
                pause = None if wake is None else max(wake - now, TICK_S)
                await self._clock.timeout(self._changed.wait(), pause)
            except TimeoutError:
                continue

    def _check(self, now: float) -> tuple[bool, float | None]:
        """Check everything; return whether something is active, and when the next thing is due."""
        busy = False
        wake: float | None = None
        deployments = self._deployments()
        for pool in [pool for each in deployments for pool in each.pools.values()]:
            try:
                pool.maintain(now)
            except Unavailable:
                busy = True
            busy = busy or pool.waiting > 0 or pool.in_flight > 0
            change = pool.next_change()
            if change is not None:
                wake = change if wake is None else min(wake, change)
        busy = busy or any(
            instance.state in {InstanceState.STARTING, InstanceState.DRAINING}
            for instance in self._instances.values()
        )
        self._kernel.look(now)
        # Also at the last check before a rest: the figures must be right while nothing measures
        # them.
        if self._budget.is_due(now) or not busy:
            self._budget.weigh(now)
        for deployment in deployments:
            deployment.kill_hung(now)
            deployment.maintain(now)
            if not deployment.retired:
                wake = min(wake or deployment.renewal, deployment.renewal)
        return busy, wake
