"""Limits on the number and memory of instances, and the choice of the instance to stop at a limit.

Idle ones go first, those worth least before others; then none may be forked until one has gone;
and if those at work grow beyond the memory, the one that uses most is ended. Memory is measured
now and then, roughly and quickly. The fleet says when to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.model.errors import Unavailable
from headrace.model.policy import FleetLimits
from headrace.runtime.deployment import Deployment
from headrace.runtime.process.eviction import GreedyDual
from headrace.runtime.process.instance import Instance
from headrace.runtime.process.memory_use import limit_of, memory_of
from headrace.runtime.process.postmortem import in_mib
from headrace.runtime.process_tree import children, offspring, uid_of
from headrace.runtime.states import InstanceState, KillReason

WEIGH_EVERY_S = 1.0
"""How often memory is looked at while functions run; it takes some 25 µs for each instance."""


class Budget:
    """Limits for all functions of a node. Owned by the fleet."""

    def __init__(
        self,
        limits: FleetLimits,
        *,
        instances: Mapping[str, Instance],
        deployments: Callable[[], list[Deployment]],
    ) -> None:
        self._most = limits.instances
        self._memory = limit_of(limits.memory)
        self._instances = instances
        self._deployments = deployments
        self._evictions = GreedyDual()
        self._weights: dict[Instance, int] = {}
        self._used = 0
        self._weighed_at = -WEIGH_EVERY_S

    def make_room(self) -> bool:
        """Return whether another may be forked now, once idle ones were let go for it.

        Raises:
            Unavailable: There is no memory for it, and nothing that would give some back.
        """
        if len(self._instances) >= self._most:
            return self._evict_one()
        while self._used >= self._memory:
            if self._evict_one():
                continue
            if any(instance.in_hand for instance in self._instances.values()):
                return False
            raise Unavailable(
                f"functions use {in_mib(self._used)} of the {in_mib(self._memory)} they may on "
                "this node, though none is at work; raise `max_memory`, or deploy fewer apps"
            )
        return True

    def is_due(self, now: float) -> bool:
        """Return whether it is time to weigh again."""
        return now - self._weighed_at >= WEIGH_EVERY_S

    def weigh(self, now: float) -> None:
        """See to it that all of them together stay within their memory."""
        self._weighed_at = now
        zygotes = [zygote for each in self._deployments() for zygote in each.zygotes]
        strays = self._strays([zygote.pid for zygote in zygotes])
        self._weights = weights = {
            instance: instance.weight(
                [
                    *offspring(instance.pid),
                    *(strays.get(uid_of(instance.pid), ()) if strays else ()),
                ]
            )
            for instance in list(self._instances.values())
            # What is on its way out gives its memory back by itself.
            if instance.state is not InstanceState.DRAINING
        }
        self._used = sum(weights.values()) + sum(zygote.weight for zygote in zygotes)
        while self._used > self._memory and self._evict_one():
            pass
        busy = [instance for instance in weights if instance.in_hand]
        if self._used > self._memory and busy:
            heaviest = max(busy, key=weights.__getitem__)
            heaviest.kill(
                KillReason.MEMORY,
                f"functions used {in_mib(self._used)} of the {in_mib(self._memory)} they may on "
                f"this node, and this one most: {in_mib(weights[heaviest])}; raise `max_memory`",
            )

    def _strays(self, zygotes: list[int]) -> dict[int, list[int]]:
        """Return the orphan processes that came to a zygote, by uid, which shows their instance.

        Where instances have no uids of their own, such processes come to the instance itself.
        """
        known = {instance.pid for instance in self._instances.values()}
        found: dict[int, list[int]] = {}
        for warden in zygotes:
            inner = [pid for pid in children(warden) if pid not in known]
            platforms = {uid_of(pid) for pid in (warden, *inner)}
            for pid in (each for zygote in inner for each in children(zygote)):
                if pid not in known and (uid := uid_of(pid)) not in platforms:
                    found.setdefault(uid, []).extend((pid, *offspring(pid)))
        return found

    def forget(self, instance: Instance) -> None:
        """It gives its memory back, or has: what it weighed when it was looked at last."""
        self._used -= self._weights.pop(instance, 0)

    def _evict_one(self) -> bool:
        candidates = [
            (
                self._evictions.worth(
                    invocations=instance.invocations,
                    start_cost=instance.started_after,
                    memory=memory_of(instance.pid),
                ),
                (pool, instance),
            )
            for deployment in self._deployments()
            for pool in deployment.pools.values()
            for instance in pool.resting
        ]
        chosen = self._evictions.choose(candidates)
        if chosen is None:
            return False
        pool, instance = chosen
        self.forget(instance)
        pool.evict(instance)
        return True
