"""Limits on the number and memory of instances, and the choice of the instance to stop at a limit.

Idle instances are evicted first, those with the lowest value before others. If none is idle, no
instance is forked until one has ended. If busy instances exceed the memory, the largest is killed.
Memory is estimated periodically, by a fast measurement. The fleet calls it.
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
from headrace.runtime.process_tree import children, descendants, uid_of
from headrace.runtime.states import InstanceState, KillReason

WEIGH_EVERY_S = 1.0
"""How often memory is measured while functions run; it takes some 25 µs for each instance."""


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

    def free_capacity(self) -> bool:
        """Return whether another instance may be forked now; evict idle ones for it.

        Raises:
            Unavailable: There is no memory for it, and no instance that could free some.
        """
        if len(self._instances) >= self._most:
            return self._evict_one()
        while self._used >= self._memory:
            if self._evict_one():
                continue
            # A busy instance will be idle and can be evicted then: the run waits. Without one,
            # waiting would never end.
            if any(instance.in_flight for instance in self._instances.values()):
                return False
            raise Unavailable(
                f"functions use {in_mib(self._used)} of the {in_mib(self._memory)} they may on "
                "this node, though none is at work; raise `max_memory`, or deploy fewer apps"
            )
        return True

    def is_due(self, now: float) -> bool:
        """Return whether memory must be measured again."""
        return now - self._weighed_at >= WEIGH_EVERY_S

    def weigh(self, now: float) -> None:
        """Measure memory; evict or kill instances until all stay within the limit."""
        self._weighed_at = now
        zygotes = [zygote for each in self._deployments() for zygote in each.zygotes]
        strays = self._orphans([zygote.pid for zygote in zygotes])
        self._weights = weights = {
            instance: instance.weight(
                [
                    *descendants(instance.pid),
                    *(strays.get(uid_of(instance.pid), ()) if strays else ()),
                ]
            )
            for instance in list(self._instances.values())
            # A draining instance frees its memory by itself.
            if instance.state is not InstanceState.DRAINING
        }
        self._used = sum(weights.values()) + sum(zygote.weight for zygote in zygotes)
        # Idle instances first: evicting them loses no run.
        while self._used > self._memory and self._evict_one():
            pass
        busy = [instance for instance in weights if instance.in_flight]
        if self._used > self._memory and busy:
            heaviest = max(busy, key=weights.__getitem__)
            heaviest.kill(
                KillReason.MEMORY,
                f"functions used {in_mib(self._used)} of the {in_mib(self._memory)} they may on "
                f"this node, and this one most: {in_mib(weights[heaviest])}; raise `max_memory`",
            )

    def _orphans(self, zygotes: list[int]) -> dict[int, list[int]]:
        """Return the orphan processes that a zygote adopted, by uid, which shows their instance.

        Instances that share a uid adopt their orphans themselves.
        """
        known = {instance.pid for instance in self._instances.values()}
        found: dict[int, list[int]] = {}
        for warden in zygotes:
            inner = [pid for pid in children(warden) if pid not in known]
            platforms = {uid_of(pid) for pid in (warden, *inner)}
            for pid in (each for zygote in inner for each in children(zygote)):
                if pid not in known and (uid := uid_of(pid)) not in platforms:
                    found.setdefault(uid, []).extend((pid, *descendants(pid)))
        return found

    def forget(self, instance: Instance) -> None:
        """Subtract the last measurement of an instance that ends: its memory is free before the next measurement."""
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
