"""One version of one app on this node: its zygotes, its pools, and what keeps them going.

There is one zygote that forks. It is started again with backoff when it dies, whatever it died of and
however often it does not come up, and replaced by a
fresh one after so many forks or so long, since all it forks share one hash secret and one address
layout; then the old one stays for as long as instances of its live, and they are let go as they
become idle. Owned by the fleet, which says when to look.
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
"""Failed restarts of a zygote through which invocations wait; then they are refused."""
RENEW_AGAIN_S = 60.0
"""How long after a zygote could not be replaced it is tried again."""


class Deployment:
    """One version of one app.

    Args:
        target: What is imported.
        interpreter: The app's own Python, None for the host's.
        make: A zygote that is not started yet.
        complain: Where to say what went wrong, by target and message.
        changed: What to call when there is something new to look after.
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
        complain: Callable[[str, str], None],
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
        self._complain = complain
        self._changed = changed
        self._spec: AppSpec | None = None
        self._restarts = 0
        self._loaded_at = 0.0
        self._renewable_at = 0.0
        self._leaving: dict[Zygote, asyncio.Task[None] | None] = {}
        self._life: Supervised | None = None
        self._death: asyncio.Future[str] | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def spec(self) -> AppSpec:
        """Return the declarations of the app as first imported; only after the start."""
        assert self._spec is not None  # noqa: S101 - it has started
        return self._spec

    @property
    def zygotes(self) -> list[Zygote]:
        """The one that forks and those that are on their way out."""
        return [*([self.zygote] if self.zygote is not None else []), *self._leaving]

    @property
    def is_hopeless(self) -> bool:
        """Return whether it has no zygote, and failed to get one so often that callers should not wait for it."""
        is_down = self.zygote is None or not self.zygote.alive
        return is_down and self._restarts >= MAX_RESTARTS

    @property
    def trouble(self) -> str:
        """Return the reason why its zygote did not start; "" if it did."""
        trouble = None if self._life is None else self._life.trouble
        return "" if trouble is None else trouble.error

    async def start(self) -> AppSpec:
        """Bring up its first zygote, and from then on another whenever that one dies.

        Raises:
            Misuse: The app cannot be imported.
            Unavailable: The process did not come up.
        """
        self._spec = await self._bring_up()
        self._life = self._tasks.supervise(
            self._live,
            name=f"zygote of {self.target}",
            backoff=Backoff(self._clock, least=RESTART_BASE_S, most=RESTART_CAP_S),
        )
        return self._spec

    async def _bring_up(self) -> AppSpec:
        zygote = self._make(self)
        loaded = await zygote.start()
        self.zygote = zygote
        self._loaded_at = self._clock.monotonic()
        return loaded.spec

    async def close(self) -> None:
        """End its zygotes and whatever they still have."""
        self.retired = True
        if self._life is not None:
            await self._life.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        for zygote in self.zygotes:
            await zygote.close()

    # -- what goes wrong -------------------------------------------------------------------------

    def died(self, dead: Zygote, why: str) -> None:
        """A zygote of its is dead, and its instances with it."""
        for instance in list(dead.instances):
            instance.kill(KillReason.ZYGOTE)
            self._tasks.start(bury(instance), name=f"bury {instance.identity}")
        self._tasks.start(dead.clear(), name=f"clear {dead.scratch.name}")
        self._leaving.pop(dead, None)
        if self.retired or dead is not self.zygote:
            return
        self._complain(self.target, f"its zygote died: {why}; it is started again")
        if self._clock.monotonic() - self._loaded_at > RESTART_CAP_S:
            self._restarts = 0
        if self._death is not None and not self._death.done():
            self._death.set_result(why)

    def kill_hung(self, now: float) -> None:
        """Kill zygotes that report no deaths: they hang, and would fork nothing either."""
        for zygote in self.zygotes:
            if zygote.alive and any(instance.is_unreaped(now) for instance in zygote.instances):
                zygote.kill()

    async def _live(self) -> None:
        """Bring up a zygote where there is none, and wait for its end.

        Raises:
            Exception: It died, or did not come up.
        """
        if self._renewing is not None and not self._renewing.done():
            # It died while another one comes up, which is as good as one of ours.
            await asyncio.wait([self._renewing])
        if self.retired:
            return
        if self.zygote is None or not self.zygote.alive:
            self._restarts += 1
            try:
                await self._bring_up()
            except Exception as error:
                self._complain(self.target, f"its zygote does not come up again: {error}")
                if self.is_hopeless:
                    self._call_all()
                raise
            self._call_all()
            self._changed()
        self._death = asyncio.get_running_loop().create_future()
        raise Unavailable(f"its zygote died: {await self._death}")

    def _call_all(self) -> None:
        for pool in self.pools.values():
            pool.call_next(everyone=True)

    # -- a fresh zygote --------------------------------------------------------------------------

    @property
    def renewal(self) -> float:
        """Return the time at which its zygote is replaced because of its age."""
        return max(self._loaded_at + self._limits.zygote_age, self._renewable_at)

    def tend(self, now: float) -> None:
        """Replace a zygote that has served its time; let go of old ones without instances."""
        zygote = self.zygote
        for old, closing in self._leaving.items():
            if (closing is None or closing.done()) and not old.instances:
                name = f"let go of {old.scratch.name}"
                self._leaving[old] = self._tasks.start(self._let_go(old), name=name)
        if zygote is None or not zygote.alive or self.retired or now < self._renewable_at:
            return
        worn = zygote.forks >= self._limits.zygote_forks or now >= self.renewal
        if worn and (self._renewing is None or self._renewing.done()):
            name = f"renew zygote of {self.target}"
            self._renewing = self._tasks.start(self._renew(zygote), name=name)

    async def _let_go(self, old: Zygote) -> None:
        await old.close()
        self._leaving.pop(old, None)

    async def _renew(self, old: Zygote) -> None:
        """Bring up another while the old one still serves, then switch."""
        self._renewable_at = self._clock.monotonic() + RENEW_AGAIN_S
        try:
            fresh = self._make(self)
            loaded = await fresh.start()
        except (Misuse, Unavailable) as error:
            self._complain(self.target, f"its zygote cannot be replaced and goes on: {error}")
            return
        if self.retired:
            await fresh.close()
            return
        if old.alive and loaded.code != old.code:
            await fresh.close()
            self._complain(
                self.target,
                f"its zygote is not replaced: its code has become version {loaded.spec.version} "
                f"since, and {old.spec.version} is deployed; deploy it again",
            )
            return
        # Its data may be others by now: a node that runs for months does not stop for that.
        if loaded.spec.version != old.spec.version:
            self._complain(
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
            # Those at work are replaced once they are done.
            instance.tainted = True
        for pool in self.pools.values():
            for instance in pool.resting:
                if instance in old.instances:
                    pool.evict(instance)
        self._call_all()
        self._changed()


async def bury(instance: Instance) -> None:
    """Wait on their pidfds for the end of a dead zygote's instances, which the zygote cannot report."""
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
