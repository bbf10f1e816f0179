"""All instances of all apps on this node: deploys versions, invokes functions, tends the pools.

One deployment per version of an app, one pool per function. An app that is deployed again gets its new
zygote first (`prepare`); only then do invocations switch, while the old version finishes what it has in
hand. What time brings is looked after in `upkeep`.
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
"""How long a child looks for its next run before it sleeps, while runs follow each other closely."""


class Fleet:
    """The runtime that isolates: implements `runtime.base.Runtime`."""

    def __init__(
        self,
        host: FleetHost,
        *,
        scratch: Path,
        files: Path | None = None,
        surroundings: Callable[[], ImportEnvironment] = ImportEnvironment,
        limits: FleetLimits | None = None,
        isolation: int = 2,
        spin: float = DEFAULT_SPIN_S,
    ) -> None:
        self._clock = host.clock
        self._tasks = host.tasks
        self._on_log = host.on_log
        self._limits = limits or FleetLimits()
        self._files = AppFolders(files or scratch.with_name(FILES), first=APP_GROUPS.start)
        self._births = Spawner(
            self,
            host,
            scratch=scratch,
            files=self._files,
            surroundings=surroundings,
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
        self._kernel = KernelKills()
        self._cold_starts: deque[float] = deque(maxlen=MAX_COLD_STARTS)
        self._cold_started = 0
        self._cold_seconds = 0.0
        self._upkeep = Housekeeping(
            clock=host.clock,
            tasks=host.tasks,
            budget=self._budget,
            kernel=self._kernel,
            instances=self._instances,
            deployments=self._deployments,
            bury=self._bury_retired,
        )
        # One object for all runs.
        self._start = self._begin
        self._draining = False
        allow_descriptors(self._limits.instances)

    # -- deploying -------------------------------------------------------------------------------

    async def deploy(self, target: str, *, interpreter: str | None = None) -> AppSpec:
        """Import an app in a process of its own and make its functions invocable.

        Raises:
            Misuse: It cannot be imported, or an app of its name is deployed from elsewhere.
            Unavailable: The process did not come up, or the fleet is draining.
        """
        coming = await self.prepare(target, interpreter=interpreter)
        self.switch(coming, coming.spec)
        self.release(coming.spec.name)
        return coming.spec

    async def prepare(self, target: str, *, interpreter: str | None = None) -> Deployment:
        """Import what the target is now, beside what runs; to be followed by `switch` or `discard`.

        Args:
            target: What is imported.
            interpreter: The app's own Python; by default that of the version that runs, else ours.

        Raises:
            Misuse: It cannot be imported, or an app of its name is deployed from elsewhere.
            Unavailable: The process did not come up, or the fleet is draining.
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
            make=self._births.zygote,
            limits=self._limits,
            clock=self._clock,
            tasks=self._tasks,
            complain=self._complain,
            changed=self._upkeep.changed,
        )
        await coming.start()
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
        # Every file of it, where the group has changed.
        await asyncio.to_thread(self._files.give, coming.spec.name, coming.target, shared=shared)

    async def discard(self, coming: Deployment) -> None:
        """End what was prepared; what runs goes on."""
        await coming.close()
        self._coming.remove(coming)

    def switch(self, coming: Deployment, spec: AppSpec) -> None:
        """Let runs that begin from now on be those of what was prepared.

        What the version before has in hand ends there; what waits in its lines goes to the new one, save
        where that has no such function: until `release`, those are run by the old one.

        Args:
            coming: What was prepared.
            spec: Its app, with the node's overrides in the place of what its author says.
        """
        self._coming.remove(coming)
        old = self._apps.get(spec.name)
        for function in spec.functions:
            coming.pools[function.name] = pool = Pool(
                function,
                fork=lambda pool: self._births.instance(coming, pool),
                make_room=self._budget.make_room,
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
        for pool in replaced:
            pool.drain()
        self._upkeep.start()
        self._upkeep.changed()

    def release(self, app: str) -> None:
        """Take on nothing more for functions that the app's version does not have any more."""
        gone = [name for name in self._pools if name.startswith(f"{app}.")]
        for name in gone:
            if name not in self._apps[app].pools:
                self._pools.pop(name).drain(serves_line=True)
        self._upkeep.changed()

    def set_partitions(self, counts: Mapping[str, int]) -> None:
        """Tell every instance, now and later, how many partitions other apps' streams have."""
        self._births.partitions.update(counts)
        for instance in self._instances.values():
            instance.set_partitions(self._births.partitions)

    # -- running ---------------------------------------------------------------------------------

    def submit(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> FleetRun:
        """As `runtime.base.Submit`."""
        # What consumes by itself goes on for long: nothing waits behind it.
        run = FleetRun(invocation, done, self._start, type(invocation) is ConsumerInvocation)
        if isinstance(after, FleetRun) and after.holder is not None:
            after.holder.run_ahead(run)
        else:
            self._begin(run)
        return run

    def _begin(self, run: FleetRun) -> None:
        """Hand it to an instance, now or when its turn comes; again where it was lost.

        Raises:
            Unknown, Overloaded, Unavailable: As `submit`.
        """
        self._pool(run.invocation).start(run)

    def _pool(self, invocation: Invocation) -> Pool:
        """Whose instances run it.

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
        if self._upkeep.rests:
            self._upkeep.begun()
        return pool

    def _deployments(self) -> list[Deployment]:
        return [*self._apps.values(), *self._retired, *self._coming]

    def _all_pools(self) -> list[Pool]:
        return [pool for deployment in self._deployments() for pool in deployment.pools.values()]

    # -- what zygotes tell -----------------------------------------------------------------------

    def born(self, instance: Instance) -> None:
        """An instance was ordered."""
        self._instances[instance.identity] = instance

    def forked(self, forked: Forked, pidfd: int) -> None:
        """A zygote forked it; the descriptor is ours."""
        instance = self._instances.get(forked.instance)
        if instance is None or instance.state is InstanceState.GONE:
            os.close(pidfd)
            return
        instance.was_born(pidfd)

    def fork_failed(self, failed: ForkFailed) -> None:
        """A zygote could not fork it."""
        instance = self._instances.get(failed.instance)
        if instance is not None:
            instance.cannot_be_born(failed.reason)

    def exited(self, exited: Exited) -> None:
        """A zygote reaped it."""
        instance = self._instances.get(exited.instance)
        if instance is not None:
            killed = exited.status == -signal.SIGKILL and instance.doom is KillReason.NONE
            words = self._kernel.explain(self._clock.monotonic()) if killed else ""
            instance.exited(exited, kernel=words)

    def gone(self, instance: Instance) -> None:
        """An instance is dead: take its scratch folder away."""
        self._instances.pop(instance.identity, None)
        self._budget.forget(instance)
        folder = instance.scratch
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            self._tasks.start(remove(folder), name=f"remove {folder.name}")
        self._upkeep.changed()

    def started(self, instance: Instance) -> None:
        """An instance has come up."""
        self._cold_starts.append(instance.started_after)
        self._cold_started += 1
        self._cold_seconds += instance.started_after

    def start_failed(self, function: str, cause: Cause) -> None:
        """An instance ended before it could take up a run."""
        where = f"\n{cause.traceback}" if cause.traceback else ""
        self._complain(
            function, f"no instance starts: {cause.kind}: {cause.message}; it is tried again{where}"
        )

    def zygote_died(self, deployment: Deployment, dead: Zygote) -> None:
        """A zygote is dead, and all that was below it."""
        why = dead.epitaph
        if "SIGKILL" in why and (news := self._kernel.explain(self._clock.monotonic())):
            why = f"{why}: the kernel killed it for memory, {news}"
        if self._draining:
            deployment.retired = True
        deployment.died(dead, why)

    def _complain(self, function: str, message: str) -> None:
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

    async def _bury_retired(self) -> None:
        for deployment in list(self._retired):
            pools = deployment.pools.values()
            if all(pool.draining and not (pool.instances or pool.waiting) for pool in pools):
                # Known until it is closed: we may be cancelled meanwhile.
                await deployment.close()
                self._retired.discard(deployment)

    # -- looking and ending ----------------------------------------------------------------------

    def down(self) -> dict[str, str]:
        """Apps whose calls are refused since no process of theirs can be started, and why."""
        return {name: app.trouble for name, app in self._apps.items() if app.is_hopeless}

    def failed_start(self, function: str) -> FailedStart | None:
        """Why no instance of the function starts; None where it does, or there is no such function."""
        pool = self._pools.get(function)
        if pool is None or pool.not_started is None:
            return None
        return failed_start_of(pool, pool.not_started, self._clock.monotonic(), self._clock.now())

    def not_starting(self) -> dict[str, FailedStart]:
        """Functions of which no instance starts, and why; others of their apps may run."""
        # A node of thousands of functions looks at all of them in one step: only at those that fail.
        failing = [name for name, pool in self._pools.items() if pool.not_started is not None]
        return {name: found for name in failing if (found := self.failed_start(name))}

    @property
    def cold_starts(self) -> ColdStarts:
        """How long starts took."""
        return ColdStarts(tuple(self._cold_starts), self._cold_started, self._cold_seconds)

    def instances(self) -> list[InstanceView]:
        """Every instance there is."""
        return views_of(self._all_pools(), self._clock.monotonic())

    async def kill(self, instance_id: str) -> None:
        """Kill one at once; what it had in hand comes back as a crash without blame.

        Raises:
            Unknown: There is no such instance.
        """
        instance = self._instances.get(instance_id)
        if instance is None:
            raise Unknown(f"there is no instance `{instance_id}`; it may be gone already")
        instance.kill(KillReason.TAKEN)

    async def close(self, grace: float = math.inf) -> None:
        """Drain: running invocations get `grace` seconds to end, then every process ends.

        What has not ended by then is killed and raises `Unavailable` to whoever waits for it.
        """
        self._draining = True
        for pool in self._all_pools():
            pool.drain()
        ends = self._clock.monotonic() + grace
        while any(pool.in_hand for pool in self._all_pools()) and self._clock.monotonic() < ends:
            await self._clock.sleep(0.005)
        for pool in self._all_pools():
            for instance in list(pool.instances):
                if instance.in_hand:
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
        self._upkeep.close()
        self._births.clear()
