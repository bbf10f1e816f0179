"""One version of one app on this node: its zygotes and its pools.

One zygote forks. It is restarted with backoff whenever it dies, and replaced by a new one after a
number of forks or a time, since all its instances share one hash secret and one address layout. The
old zygote stays until its last instance has ended; its instances are evicted as they become idle.
Owned by the fleet, which calls `maintain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.environment.clock import Clock
from headrace.environment.restart_backoff import Backoff
from headrace.environment.supervised_task import Supervised
from headrace.environment.tasks import Tasks
from headrace.model.errors import Misuse, Unavailable
from headrace.model.function import AppSpec
from headrace.model.policy import FleetLimits
from headrace.runtime.pool import Pool
from headrace.runtime.process.instance import Instance
from headrace.runtime.process.zygote import Zygote
from headrace.runtime.protocol.messages import Exited
from headrace.runtime.states import KillReason

RESTART_BASE_S = 0.05
RESTART_CAP_S = 10.0
MAX_RESTARTS = 4
"""Failed restarts of a zygote during which invocations wait; after these they are refused."""
RENEW_AGAIN_S = 60.0
"""How long after a failed replacement of a zygote the next attempt starts."""


class Deployment:
    """One version of one app.

    Args:
        target: The target to import.
        interpreter: The app's Python, None for the host's.
        make: Creates a zygote without starting it.
        report_error: Logs an error, by target and message.
        changed: Called when housekeeping has something new to check.
    """

    def __init__(
        self,
        target: str,
        interpreter: str | None,
        *,
        make: Callable[[Deployment], Zygote],
        limits: FleetLimits,
        clock: Clock,
        tasks: Tasks,
        report_error: Callable[[str, str], None],
        changed: Callable[[], None],
    ) -> None:
        self.target = target
        self.interpreter = interpreter
        self.zygote: Zygote | None = None
        self.pools: dict[str, Pool] = {}
        self.retired = False
        self._make = make
        self._limits = limits
        self._clock = clock
        self._tasks = tasks
        self._report_error = report_error
        self._changed = changed
        self._spec: AppSpec | None = None
        self._restarts = 0
        self._loaded_at = 0.0
        self._renewable_at = 0.0
        self._leaving: dict[Zygote, asyncio.Task[None] | None] = {}
        self._restarter: Supervised | None = None
        self._death: asyncio.Future[str] | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def spec(self) -> AppSpec:
        """Return the declarations of the app as first imported; only after the start."""
        assert self._spec is not None  # noqa: S101 - it has started
        return self._spec

    @property
    def zygotes(self) -> list[Zygote]:
        """Return the zygote that forks and those that are being replaced."""
        return [*([self.zygote] if self.zygote is not None else []), *self._leaving]

    @property
    def is_hopeless(self) -> bool:
        """Return whether it has no zygote after so many attempts that callers should not wait for one."""
        is_down = self.zygote is None or not self.zygote.alive
        return is_down and self._restarts >= MAX_RESTARTS

    @property
    def trouble(self) -> str:
        """Return the reason why its zygote did not start; "" if it did."""
        trouble = None if self._restarter is None else self._restarter.trouble
        return "" if trouble is None else trouble.error

    async def start(self) -> AppSpec:
        """Start its first zygote, and from then on another whenever that one dies.

        Raises:
            Misuse: The app cannot be imported.
            Unavailable: The process did not start.
        """
        self._spec = await self._start_zygote()
        self._restarter = self._tasks.supervise(
            self._keep_zygote,
            name=f"zygote of {self.target}",
            backoff=Backoff(self._clock, least=RESTART_BASE_S, most=RESTART_CAP_S),
        )
        return self._spec

    async def _start_zygote(self) -> AppSpec:
        zygote = self._make(self)
        loaded = await zygote.start()
        self.zygote = zygote
        self._loaded_at = self._clock.monotonic()
        return loaded.spec

    async def close(self) -> None:
        """Stop its zygotes and their instances."""
        self.retired = True
        if self._restarter is not None:
            await self._restarter.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        for zygote in self.zygotes:
            await zygote.close()

    # -- failures -------------------------------------------------------------------------

    def died(self, dead: Zygote, why: str) -> None:
        """Handle the death of a zygote and of its instances."""
        for instance in list(dead.instances):
            instance.kill(KillReason.ZYGOTE)
            # The pidfd, since the zygote that would have reported the exit is dead: a run is
            # repeated only once its process is.
            self._tasks.start(wait_for_exit(instance), name=f"wait_for_exit {instance.identity}")
        self._tasks.start(dead.clear(), name=f"clear {dead.scratch.name}")
        self._leaving.pop(dead, None)
        if self.retired or dead is not self.zygote:
            return
        self._report_error(self.target, f"its zygote died: {why}; it is started again")
        # Only a zygote that ran for a while counts as a recovery: one that dies right after its
        # import still counts as failing.
        if self._clock.monotonic() - self._loaded_at > RESTART_CAP_S:
            self._restarts = 0
        if self._death is not None and not self._death.done():
            self._death.set_result(why)

    def kill_hung(self, now: float) -> None:
        """Kill zygotes that do not report exits: they hang, and would not fork either."""
        for zygote in self.zygotes:
            if zygote.alive and any(instance.is_unreaped(now) for instance in zygote.instances):
                zygote.kill()

    async def _keep_zygote(self) -> None:
        """Start a zygote if there is none, and wait for its end.

        Raises:
            Exception: It died, or did not start.
        """
        if self._renewing is not None and not self._renewing.done():
            # It died while its replacement starts, which serves as well as a restart.
            await asyncio.wait([self._renewing])
        if self.retired:
            return
        if self.zygote is None or not self.zygote.alive:
            self._restarts += 1
            try:
                await self._start_zygote()
            except Exception as error:
                self._report_error(self.target, f"its zygote does not come up again: {error}")
                if self.is_hopeless:
                    self._serve_waiting()
                raise
            self._serve_waiting()
            self._changed()
        self._death = asyncio.get_running_loop().create_future()
        raise Unavailable(f"its zygote died: {await self._death}")

    def _serve_waiting(self) -> None:
        for pool in self.pools.values():
            pool.call_next(refuse_all=True)

    # -- a fresh zygote --------------------------------------------------------------------------

    @property
    def renewal(self) -> float:
        """Return the time at which its zygote's age requires a replacement."""
        return max(self._loaded_at + self._limits.zygote_age, self._renewable_at)

    def maintain(self, now: float) -> None:
        """Replace a zygote that has reached its limit; close old ones without instances."""
        zygote = self.zygote
        for old, closing in self._leaving.items():
            if (closing is None or closing.done()) and not old.instances:
                name = f"let go of {old.scratch.name}"
                self._leaving[old] = self._tasks.start(self._close_old(old), name=name)
        if zygote is None or not zygote.alive or self.retired or now < self._renewable_at:
            return
        worn = zygote.forks >= self._limits.zygote_forks or now >= self.renewal
        if worn and (self._renewing is None or self._renewing.done()):
            name = f"renew zygote of {self.target}"
            self._renewing = self._tasks.start(self._renew(zygote), name=name)

    async def _close_old(self, old: Zygote) -> None:
        await old.close()
        self._leaving.pop(old, None)

    async def _renew(self, old: Zygote) -> None:
        """Start another zygote while the old one still forks, then switch."""
        # Set before the attempt, so that every way in which it fails waits for the next one.
        self._renewable_at = self._clock.monotonic() + RENEW_AGAIN_S
        try:
            fresh = self._make(self)
            loaded = await fresh.start()
        except (Misuse, Unavailable) as error:
            self._report_error(self.target, f"its zygote cannot be replaced and goes on: {error}")
            return
        if self.retired:
            await fresh.close()
            return
        # Files changed without a deployment: half the instances would run other code under the
        # same version.
        if old.alive and loaded.code != old.code:
            await fresh.close()
            self._report_error(
                self.target,
                f"its zygote is not replaced: its code has become version {loaded.spec.version} "
                f"since, and {old.spec.version} is deployed; deploy it again",
            )
            return
        # Data files may change without a deployment: a node that runs for months must not stop
        # replacing zygotes for that.
        if loaded.spec.version != old.spec.version:
            self._report_error(
                self.target,
                f"its new zygote found other data files than the one before: version "
                f"{loaded.spec.version}, of the same code as {old.spec.version}",
            )
        self.zygote = fresh
        self._loaded_at = self._clock.monotonic()
        self._renewable_at = 0.0
        if old.alive:
            self._leaving[old] = None
        for instance in old.instances:
            # Busy instances are replaced after their run.
            instance.tainted = True
        for pool in self.pools.values():
            for instance in pool.resting:
                if instance in old.instances:
                    pool.evict(instance)
        self._serve_waiting()
        self._changed()


async def wait_for_exit(instance: Instance) -> None:
    """Wait on its pidfd for the exit of a dead zygote's instance, which the zygote cannot report."""
    pidfd = instance.pidfd
    if pidfd >= 0:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, _settle, ended)
        try:
            await ended
        finally:
            loop.remove_reader(pidfd)
    instance.exited(Exited(instance.identity, -9, 0.0, 0))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
