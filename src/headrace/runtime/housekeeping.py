"""Periodic work of a fleet: timeouts, hibernation, eviction, memory, zygotes that hang or grow old.

It checks everything once every tick while a run is active, and rests otherwise until something
changes or is due. A new run need not be checked before a tick is over, so that a check never
delays an answer.
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
"""How long it pauses at most after an error: nothing else enforces timeouts."""


class Housekeeping:
    """Owned by the fleet.

    Args:
        clock: The time.
        tasks: Where its one task lives.
        budget: Weighs the instances.
        kernel: Notices kills by the kernel.
        instances: All there are.
        deployments: The same, retired ones too.
        bury: Lets go of retired deployments without instances.
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
        bury: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._budget = budget
        self._kernel = kernel
        self._instances = instances
        self._deployments = deployments
        self._bury = bury
        self._changed = asyncio.Event()
        self._task: Supervised | None = None
        self.rests = False
        """Whether no run is active as far as it knows; then the start of a run must call `begun`."""

    def start(self) -> None:
        """Start its task, if it does not run."""
        if self._task is None:
            backoff = Backoff(self._clock, least=TICK_S, most=MOST_S)
            self._task = self._tasks.supervise(
                self._look_after, name="fleet upkeep", backoff=backoff
            )

    def close(self) -> None:
        """Cancel its task."""
        if self._task is not None:
            self._task.task.cancel()

    def begun(self) -> None:
        """Check when a tick is over: a run was started while it rested."""
        self.rests = False
        asyncio.get_running_loop().call_later(TICK_S, self._changed.set)

    def changed(self) -> None:
        """Check now: something has changed."""
        self._changed.set()

    async def _look_after(self) -> None:
        while True:
            self._changed.clear()
            # Runs that start from here on call `begun`, also while deployments are removed.
            self.rests = True
            now = self._clock.monotonic()
            busy, wake = self._look(now)
            await self._bury()
            if busy:
                self.rests = False
                await self._clock.sleep(TICK_S)
                continue
            try:
                pause = None if wake is None else max(wake - now, TICK_S)
                await self._clock.timeout(self._changed.wait(), pause)
            except TimeoutError:
                continue

    def _look(self, now: float) -> tuple[bool, float | None]:
        """See to everything; whether something is under way, and when something falls due."""
        busy = False
        wake: float | None = None
        deployments = self._deployments()
        for pool in [pool for each in deployments for pool in each.pools.values()]:
            try:
                pool.tend(now)
            except Unavailable:
                busy = True
            busy = busy or pool.waiting > 0 or pool.in_hand > 0
            change = pool.next_change()
            if change is not None:
                wake = change if wake is None else min(wake, change)
        busy = busy or any(
            instance.state in {InstanceState.STARTING, InstanceState.DRAINING}
            for instance in self._instances.values()
        )
        self._kernel.look(now)
        if self._budget.is_due(now) or not busy:
            self._budget.weigh(now)
        for deployment in deployments:
            deployment.kill_hung(now)
            deployment.tend(now)
            if not deployment.retired:
                wake = min(wake or deployment.renewal, deployment.renewal)
        return busy, wake
