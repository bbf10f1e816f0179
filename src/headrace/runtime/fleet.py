"""All instances of all apps on this node: deploys versions, runs functions, maintains the pools.

One deployment per version of an app, one pool per function. An app that is deployed again gets its
new zygote first (`prepare`); only then do invocations switch, while the old version finishes its
runs in flight. Periodic work is in `housekeeping`.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.model.errors import Misuse, Unavailable, Unknown
from headrace.model.function import AppSpec
from headrace.model.invocation import ConsumerInvocation, Invocation
from headrace.model.outcome import Cause
from headrace.model.policy import FleetLimits
from headrace.model.settings import ImportEnvironment
from headrace.runtime.app_folders import FILES, AppFolders
from headrace.runtime.base import Run, Waiter
from headrace.runtime.budget import Budget
from headrace.runtime.deployment import Deployment
from headrace.runtime.fleet_run import FleetRun
from headrace.runtime.housekeeping import Housekeeping
from headrace.runtime.instance_views import ColdStarts, FailedStart, InstanceView
from headrace.runtime.pool import Pool
from headrace.runtime.pool_views import failed_start_of, views_of
from headrace.runtime.process.fleet_host import FleetHost
from headrace.runtime.process.instance import Instance
from headrace.runtime.process.instance_logs import InstanceLine
from headrace.runtime.process.memory_use import KernelKills
from headrace.runtime.process.zygote import Zygote
from headrace.runtime.protocol.messages import Exited, Forked, ForkFailed
from headrace.runtime.spawner import APP_GROUPS, Spawner, allow_descriptors, remove
from headrace.runtime.states import InstanceState, KillReason

MAX_COLD_STARTS = 1_000
STOP_GRACE_S = 3.0
DEFAULT_SPIN_S = 100e-6
"""How long a child polls for its next run before it sleeps, while runs follow each other closely."""


class Fleet:
    """The runtime of a node, with isolated instances: implements `runtime.base.Runtime`."""

    def __init__(
        self,
        host: FleetHost,
        *,
        scratch: Path,
        files: Path | None = None,
        import_environment: Callable[[], ImportEnvironment] = ImportEnvironment,
        limits: FleetLimits | None = None,
        isolation: int = 2,
        spin: float = DEFAULT_SPIN_S,
    ) -> None:
        self._clock = host.clock
        self._tasks = host.tasks
        self._on_log = host.on_log
        self._limits = limits or FleetLimits()
        self._files = AppFolders(files or scratch.with_name(FILES), first=APP_GROUPS.start)
        self._spawner = Spawner(
            self,
            host,
            scratch=scratch,
            files=self._files,
            import_environment=import_environment,
            isolation=isolation,
            spin=spin,
        )
        self._apps: dict[str, Deployment] = {}
        self._coming: list[Deployment] = []
        self._pools: dict[str, Pool] = {}
        self._retired: set[Deployment] = set()
        self._instances: dict[str, Instance] = {}
        self._budget = Budget(
            self._limits, instances=self._instances, deployments=self._deployments
        )
        self._kernel_kills = KernelKills()
        self._cold_starts: deque[float] = deque(maxlen=MAX_COLD_STARTS)
        self._cold_started = 0
        self._cold_seconds = 0.0
        self._housekeeping = Housekeeping(
            clock=host.clock,
            tasks=host.tasks,
            budget=self._budget,
            kernel=self._kernel_kills,
            instances=self._instances,
            deployments=self._deployments,
            close_retired=self._close_retired,
        )
        # Bound once: a bound method per run would be one more object for each.
        self._start = self._begin
        self._draining = False
        allow_descriptors(self._limits.instances)

    # -- deploying -------------------------------------------------------------------------------

    async def deploy(self, target: str, *, interpreter: str | None = None) -> AppSpec:
        """Import an app in a separate process and make its functions invocable.

        Raises:
            Misuse: It cannot be imported, or an app of its name is deployed from elsewhere.
            Unavailable: The process did not start, or the fleet is draining.
        """
        coming = await self.prepare(target, interpreter=interpreter)
        self.switch(coming, coming.spec)
        self.release(coming.spec.name)
        return coming.spec

    async def prepare(self, target: str, *, interpreter: str | None = None) -> Deployment:
        """Import the target's current code next to the running version, before `switch` or `discard`.

        Args:
            target: The target to import.
            interpreter: The app's Python; by default that of the running version, else the host's.

        Raises:
            Misuse: It cannot be imported, or an app of its name is deployed from elsewhere.
            Unavailable: The process did not start, or the fleet is draining.
        """
        if self._draining:
            raise Unavailable("the fleet is draining; deploy again after the restart")
        if interpreter is None:
            interpreter = next(
                (app.interpreter for app in self._apps.values() if app.target == target), None
            )
        coming = Deployment(
            target,
            interpreter,
            make=self._spawner.zygote,
            limits=self._limits,
            clock=self._clock,
            tasks=self._tasks,
            report_error=self._report_error,
            changed=self._housekeeping.changed,
        )
        await coming.start()
        # Before the checks, so that two deployments of one name that start together see each
        # other.
        self._coming.append(coming)
        try:
            self._refuse_another(coming)
            await self._give_files(coming)
        except BaseException:
            await self.discard(coming)
            raise
        return coming

    def _refuse_another(self, coming: Deployment) -> None:
        name, target = coming.spec.name, coming.target
        for other in (*self._apps.values(), *self._coming):
            if other.spec.name == name and other.target != target:
                raise Misuse(
                    f"an app called `{name}` is deployed from `{other.target}`; "
                    f"give the one in `{target}` another name"
                )

    async def _give_files(self, coming: Deployment) -> None:
        zygote = coming.zygote
        shared = zygote is not None and zygote.loaded is not None and zygote.loaded.shares
        # In a thread: if the group has changed, this changes every file of the folder.
        await asyncio.to_thread(self._files.give, coming.spec.name, coming.target, shared=shared)

    async def discard(self, coming: Deployment) -> None:
        """Close a prepared deployment; the running one continues."""
        await coming.close()
        self._coming.remove(coming)

    def switch(self, coming: Deployment, spec: AppSpec) -> None:
        """Direct new runs to the prepared deployment.

        The former version finishes its runs in flight. Its waiting runs move to the new one, unless that has no such
        function: until `release`, the old version runs those.

        Args:
            coming: The prepared deployment.
            spec: Its app, with the node's overrides applied.
        """
        self._coming.remove(coming)
        old = self._apps.get(spec.name)
        for function in spec.functions:
            coming.pools[function.name] = pool = Pool(
                function,
                fork=lambda pool: self._spawner.instance(coming, pool),
                free_capacity=self._budget.free_capacity,
                now=self._clock.monotonic,
            )
            if (before := self._pools.get(function.name)) is not None:
                pool.keep_pace_of(before)
        self._apps[spec.name] = coming
        replaced = [self._pools[name] for name in coming.pools if name in self._pools]
        self._pools.update(coming.pools)
        if old is not None:
            old.retired = True
            self._retired.add(old)
        # After the new pools are in place: draining submits the waiting runs again, which must
        # find them.
        for pool in replaced:
            pool.drain()
        self._housekeeping.start()
        self._housekeeping.changed()

    def release(self, app: str) -> None:
        """Accept no more runs of functions that the app's new version does not have."""
        gone = [name for name in self._pools if name.startswith(f"{app}.")]
        for name in gone:
            if name not in self._apps[app].pools:
                self._pools.pop(name).drain(serves_waiting=True)
        self._housekeeping.changed()

    def set_partitions(self, counts: Mapping[str, int]) -> None:
        """Send the partition counts of other apps' streams to all instances, present and future."""
        self._spawner.partitions.update(counts)
        for instance in self._instances.values():
            instance.set_partitions(self._spawner.partitions)

    # -- running ---------------------------------------------------------------------------------

    def submit(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> FleetRun:
        """As `runtime.base.Submit`."""
        # A run that fetches its events takes long: no other run may wait behind it.
        run = FleetRun(invocation, done, self._start, type(invocation) is ConsumerInvocation)
        if isinstance(after, FleetRun) and after.holder is not None:
            after.holder.run_ahead(run)
        else:
            self._begin(run)
        return run

    def _begin(self, run: FleetRun) -> None:
        """Start a run on an instance, now or when one is free; also after it was lost.

        Raises:
            Unknown, Overloaded, Unavailable: As `submit`.
        """
        self._pool(run.invocation).start(run)

    def _pool(self, invocation: Invocation) -> Pool:
        """Return the pool of the function.

        Raises:
            Unknown: No such function is deployed here.
            Unavailable: The fleet is draining.
        """
        if self._draining:
            raise Unavailable(f"`{invocation.function}` is draining; try again later")
        pool = self._pools.get(invocation.function)
        if pool is None:
            raise Unknown(
                f"no function `{invocation.function}` is deployed here; "
                f"there are {', '.join(sorted(self._pools)) or 'none'}"
            )
        if self._housekeeping.rests:
            self._housekeeping.run_started()
        return pool

    def _deployments(self) -> list[Deployment]:
        return [*self._apps.values(), *self._retired, *self._coming]

    def _all_pools(self) -> list[Pool]:
        return [pool for deployment in self._deployments() for pool in deployment.pools.values()]

    # -- events of zygotes and instances -----------------------------------------------------------------------

    def instance_requested(self, instance: Instance) -> None:
        """Register an instance that was requested from a zygote."""
        self._instances[instance.identity] = instance

    def forked(self, forked: Forked, pidfd: int) -> None:
        """Take note of a fork; this owns the descriptor."""
        instance = self._instances.get(forked.instance)
        if instance is None or instance.state is InstanceState.GONE:
            os.close(pidfd)
            return
        instance.on_forked(pidfd)

    def fork_failed(self, failed: ForkFailed) -> None:
        """Take note of a failed fork."""
        instance = self._instances.get(failed.instance)
        if instance is not None:
            instance.on_fork_failed(failed.reason)

    def exited(self, exited: Exited) -> None:
        """Take note of a reaped instance."""
        instance = self._instances.get(exited.instance)
        if instance is not None:
            # Only a SIGKILL that this host did not send can be one of the kernel's.
            killed = exited.status == -signal.SIGKILL and instance.kill_reason is KillReason.NONE
            words = self._kernel_kills.explain(self._clock.monotonic()) if killed else ""
            instance.exited(exited, kernel=words)

    def gone(self, instance: Instance) -> None:
        """Take note that an instance is dead, and remove its scratch folder."""
        self._instances.pop(instance.identity, None)
        self._budget.forget(instance)
        folder = instance.scratch
        try:
            # Most instances leave an empty folder: a thread for each would cost more than this
            # call.
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            self._tasks.start(remove(folder), name=f"remove {folder.name}")
        self._housekeeping.changed()

    def started(self, instance: Instance) -> None:
        """Take note that an instance has started."""
        self._cold_starts.append(instance.started_after)
        self._cold_started += 1
        self._cold_seconds += instance.started_after

    def start_failed(self, function: str, cause: Cause) -> None:
        """Log that an instance ended before it could accept a run."""
        where = f"\n{cause.traceback}" if cause.traceback else ""
        self._report_error(
            function, f"no instance starts: {cause.kind}: {cause.message}; it is tried again{where}"
        )

    def zygote_died(self, deployment: Deployment, dead: Zygote) -> None:
        """Take note of the death of a zygote and of all its instances."""
        why = dead.exit_reason
        if "SIGKILL" in why and (news := self._kernel_kills.explain(self._clock.monotonic())):
            why = f"{why}: the kernel killed it for memory, {news}"
        if self._draining:
            deployment.retired = True
        deployment.died(dead, why)

    def _report_error(self, function: str, message: str) -> None:
        self._on_log(
            InstanceLine(
                function=function,
                instance="",
                stream="log",
                level="ERROR",
                logger="headrace.runtime",
                message=message,
                time=self._clock.now(),
            )
        )

    async def _close_retired(self) -> None:
        for deployment in list(self._retired):
            pools = deployment.pools.values()
            if all(pool.draining and not (pool.instances or pool.waiting) for pool in pools):
                # Removed only after `close`, which may be cancelled: the fleet's own `close` then
                # finds it.
                await deployment.close()
                self._retired.discard(deployment)

    # -- views and shutdown ----------------------------------------------------------------------

    def down(self) -> dict[str, str]:
        """Return the apps whose calls are refused because their process cannot be started, and why."""
        return {name: app.trouble for name, app in self._apps.items() if app.is_hopeless}

    def failed_start(self, function: str) -> FailedStart | None:
        """Return why no instance of the function starts; None if it starts, or there is no such function."""
        pool = self._pools.get(function)
        if pool is None or pool.not_started is None:
            return None
        return failed_start_of(pool, pool.not_started, self._clock.monotonic(), self._clock.now())

    def not_starting(self) -> dict[str, FailedStart]:
        """Return the functions of which no instance starts, and why; others of their apps may run."""
        # A node of thousands of functions looks at all of them in one step: only at those that fail.
        failing = [name for name, pool in self._pools.items() if pool.not_started is not None]
        return {name: found for name in failing if (found := self.failed_start(name))}

    @property
    def cold_starts(self) -> ColdStarts:
        """Return how long starts took."""
        return ColdStarts(tuple(self._cold_starts), self._cold_started, self._cold_seconds)

    def instances(self) -> list[InstanceView]:
        """Return a view of every instance."""
        return views_of(self._all_pools(), self._clock.monotonic())

    async def kill(self, instance_id: str) -> None:
        """Kill one immediately; its runs in flight end as crashes without blame.

        Raises:
            Unknown: There is no such instance.
        """
        instance = self._instances.get(instance_id)
        if instance is None:
            raise Unknown(f"there is no instance `{instance_id}`; it may be gone already")
        instance.kill(KillReason.TAKEN)

    async def close(self, grace: float = math.inf) -> None:
        """Drain: running invocations get `grace` seconds to end, then every process is stopped.

        Runs that have not ended by then are killed, and their waiters get `Unavailable`.
        """
        self._draining = True
        for pool in self._all_pools():
            pool.drain()
        ends = self._clock.monotonic() + grace
        while any(pool.in_flight for pool in self._all_pools()) and self._clock.monotonic() < ends:
            # Polled: a shutdown happens once, and an event for it would have to be set on the path
            # of every run.
            await self._clock.sleep(0.005)
        for pool in self._all_pools():
            for instance in list(pool.instances):
                if instance.in_flight:
                    instance.kill(KillReason.DRAINED)
        deadline = self._clock.monotonic() + STOP_GRACE_S
        while self._instances and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.002)
        for instance in list(self._instances.values()):
            instance.kill(KillReason.TAKEN)
        while self._instances and self._clock.monotonic() < deadline + STOP_GRACE_S:
            await self._clock.sleep(0.002)
        for deployment in self._deployments():
            await deployment.close()
        self._housekeeping.close()
        self._spawner.clear()
