"""Current state of pools, as the values of `instance_views`."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.model.outcome import Cause
from headrace.runtime.instance_views import FailedStart, InstanceView
from headrace.runtime.pool import Pool
from headrace.runtime.process.memory_use import own_memory_of
from headrace.runtime.states import InstanceState


def failed_start_of(pool: Pool, cause: Cause, monotonic: float, now: int) -> FailedStart:
    """Return what an operator reads of a pool whose instances do not start, at this moment on both clocks."""
    pause_s = max(pool.starts_again - monotonic, 0.0)
    running = any(instance.state is not InstanceState.STARTING for instance in pool.instances)
    return FailedStart(f"{cause.kind}: {cause.message}", now + round(pause_s * 1e6), running)


def views_of(pools: Iterable[Pool], now: float) -> list[InstanceView]:
    """Return a view of every instance of these pools. Slow: the kernel counts memory page by page."""
    return [
        InstanceView(
            id=instance.identity,
            pid=instance.pid,
            app=instance.spec.app,
            function=instance.function,
            version=pool.spec.version,
            state=instance.state.value,
            age=now - instance.created_at,
            invocations=instance.invocations,
            memory=own_memory_of(instance.pid),
        )
        for pool in pools
        for instance in pool.instances
    ]
