"""What one may know of the instances that live, for people and programs that look on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.runtime.pool import Pool
from headrace.runtime.process.memory_use import own_memory_of


class ColdStarts(msgspec.Struct, frozen=True):
    """How long starts took, from lease to hello.

    Attributes:
        latest: Seconds of recent ones, oldest first.
        count: How many there were since the node started.
        seconds: What they took together.
    """

    latest: tuple[float, ...] = ()
    count: int = 0
    seconds: float = 0.0


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """What one may know of an instance; `memory` is its own bytes, not those it shares."""

    id: str
    pid: int
    app: str
    function: str
    version: str
    state: str
    age: float
    invocations: int
    memory: int


def views_of(pools: Iterable[Pool], now: float) -> list[InstanceView]:
    """Every instance of these pools, as it is now. Slow: its memory is counted page by page."""
    return [
        InstanceView(
            id=instance.identity,
            pid=instance.pid,
            app=instance.spec.app,
            function=instance.function,
            version=pool.spec.version,
            state=instance.state.value,
            age=now - instance.born,
            invocations=instance.invocations,
            memory=own_memory_of(instance.pid),
        )
        for pool in pools
        for instance in pool.instances
    ]
