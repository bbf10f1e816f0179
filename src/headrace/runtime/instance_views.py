"""What one may know of the instances that live, for people and programs that look on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from headrace.runtime.pool import Pool
from headrace.runtime.process.memory_use import own_memory_of
from headrace.runtime.states import InstanceState


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


class FailedStart(msgspec.Struct, frozen=True):
    """Why the latest instance of a function did not start.

    Attributes:
        cause: What its `init` hook raised and which one that was, or how it ended.
        next_start: When another one is tried at the earliest, µs since the epoch.
        running: Whether other instances of the function run meanwhile.
    """

    cause: str
    next_start: int
    running: bool


FailedStarts = Callable[[str], FailedStart | None]
"""Of the function of this full name; None where instances start."""


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


def every_start_succeeds(_function: str) -> FailedStart | None:
    """Where functions run in the host itself."""
    return None


def failed_start_of(pool: Pool, monotonic: float, now: int) -> FailedStart | None:
    """Why no instance of this pool starts, at this moment on both clocks."""
    cause = pool.not_started
    if cause is None:
        return None
    pause_s = max(pool.starts_again - monotonic, 0.0)
    running = any(instance.state is not InstanceState.STARTING for instance in pool.instances)
    return FailedStart(f"{cause.kind}: {cause.message}", now + round(pause_s * 1e6), running)


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
