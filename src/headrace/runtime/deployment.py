"""One version of one app on this node: its zygotes, its pools, and what keeps them going.

There is one zygote that forks. It is started again with backoff when it dies and replaced by a
fresh one after so many forks or so long, since all it forks share one hash secret and one address
layout; then the old one stays for as long as instances of its live, and they are let go as they
become idle. Owned by the fleet, which says when to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.model.errors import Misuse, Unavailable
from headrace.model.function import AppSpec
from headrace.model.policy import FleetLimits
from headrace.runtime.instance import Instance
from headrace.runtime.life import Doom
from headrace.runtime.pool import Pool
from headrace.runtime.wire import Exited
from headrace.runtime.zygote import Zygote
from headrace.world.clock import Clock
from headrace.world.tasks import Tasks

RESTART_BASE_S = 0.05
RESTART_CAP_S = 10.0
PATIENCE = 4
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
        self._restarts = 0
        self._loaded_at = 0.0
        self._renewable_at = 0.0
        self._leaving: dict[Zygote, asyncio.Task[None] | None] = {}
        self._work: asyncio.Task[None] | None = None

    @property
    def zygotes(self) -> list[Zygote]:
        """The one that forks and those that are on their way out."""
        return [*([self.zygote] if self.zygote is not None else []), *self._leaving]

    @property
    def is_hopeless(self) -> bool:
        """Whether its zygote failed to come up so often that nobody should wait for it."""
        return self._restarts >= PATIENCE

    async def start(self) -> AppSpec:
        """Bring up a zygote, which from then on is the one that forks.

        Raises:
            Misuse: The app cannot be imported.
            Unavailable: The process did not come up.
        """
        zygote = self._make(self)
        loaded = await zygote.start()
        self.zygote = zygote
        self._loaded_at = self._clock.monotonic()
        return loaded.spec

    async def close(self) -> None:
        """End its zygotes and whatever they still have."""
        self.retired = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        for zygote in self.zygotes:
            await zygote.close()

    # -- what goes wrong -------------------------------------------------------------------------

    def died(self, dead: Zygote, why: str) -> None:
        """A zygote of its is dead, and its instances with it."""
        for instance in list(dead.instances):
            instance.kill(Doom.ZYGOTE)
            self._tasks.start(bury(instance), name=f"bury {instance.identity}")
        self._tasks.start(dead.clear(), name=f"clear {dead.scratch.name}")
        self._leaving.pop(dead, None)
        if self.retired or dead is not self.zygote:
            return
        self._complain(self.target, f"its zygote died: {why}; it is started again")
        if self._clock.monotonic() - self._loaded_at > RESTART_CAP_S:
            self._restarts = 0
        if self._work is None or self._work.done():
            self._work = self._tasks.start(self._restart(), name=f"restart zygote of {self.target}")

    def kill_hung(self, now: float) -> None:
        """Kill zygotes that report no deaths: they hang, and would fork nothing either."""
        for zygote in self.zygotes:
            if zygote.alive and any(instance.is_unreaped(now) for instance in zygote.instances):
                zygote.kill()

    async def _restart(self) -> None:
        while not self.retired:
            pause = min(RESTART_BASE_S * 2**self._restarts, RESTART_CAP_S)
            self._restarts += 1
            await self._clock.sleep(pause)
            try:
                await self.start()
            except (Misuse, Unavailable) as error:
                self._complain(self.target, f"its zygote does not come up again: {error}")
                if self.is_hopeless:
                    self._call_all()
                continue
            self._call_all()
            self._changed()
            return

    def _call_all(self) -> None:
        for pool in self.pools.values():
            pool.call_all()

    # -- a fresh zygote --------------------------------------------------------------------------

    @property
    def renewal(self) -> float:
        """When its zygote is to be replaced for its age."""
        return max(self._loaded_at + self._limits.zygote_age, self._renewable_at)

    def tend(self, now: float) -> None:
        """Replace a zygote that has served its time; let go of old ones that nobody needs."""
        zygote = self.zygote
        for old, closing in self._leaving.items():
            if closing is None and not old.instances:
                name = f"let go of {old.scratch.name}"
                self._leaving[old] = self._tasks.start(self._let_go(old), name=name)
        if zygote is None or not zygote.alive or self.retired or now < self._renewable_at:
            return
        worn = zygote.forks >= self._limits.zygote_forks or now >= self.renewal
        if worn and (self._work is None or self._work.done()):
            name = f"renew zygote of {self.target}"
            self._work = self._tasks.start(self._renew(zygote), name=name)

    async def _let_go(self, old: Zygote) -> None:
        await old.close()
        self._leaving.pop(old, None)

    async def _renew(self, old: Zygote) -> None:
        """Bring up another while the old one still serves, then switch."""
        self._renewable_at = self._clock.monotonic() + RENEW_AGAIN_S
        fresh = self._make(self)
        try:
            loaded = await fresh.start()
        except (Misuse, Unavailable) as error:
            self._complain(self.target, f"its zygote cannot be replaced and goes on: {error}")
            if not old.alive:
                await self._restart()
            return
        if old.alive and loaded.spec.version != old.spec.version:
            await fresh.close()
            self._complain(
                self.target,
                f"its zygote is not replaced: its code has become version {loaded.spec.version} "
                f"since, and {old.spec.version} is deployed; deploy it anew",
            )
            return
        if self.retired:
            await fresh.close()
            return
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
    """Nobody reports the end of a dead zygote's instances: wait for it on their pidfds."""
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
