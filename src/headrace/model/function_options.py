"""The options of a function that its spec holds: the one table of them. Pure.

A row is a field of `FunctionOptions` (type, default, range, text) and, beneath, the type under which an
author gives it, in `GivenOptions`: a type checker cannot derive the one from the other, so a test does.
`FunctionSpec`, the checks of `App.function` and of `headrace.toml`, and the reference page read the rows.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import msgspec

from headrace.model.durations import Duration
from headrace.model.flow_control import Concurrency, Debounce, Priority, Sample, Singleton, Throttle
from headrace.model.options import Option
from headrace.model.policy import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    Breaker,
    Commit,
    DeadLetter,
    EventOrder,
    OnFailure,
    Resources,
    Retry,
    Scaling,
)
from headrace.model.sizes import Size


class FunctionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of how a function is run, as the platform holds them; durations are seconds, sizes bytes."""

    batch_size: Annotated[int, Option("events in one invocation at most", 1, MAX_BATCH)] = 100
    batch_bytes: Annotated[
        int,
        Option("bytes of events in one invocation at most", 1, MAX_BATCH_BYTES, unit="bytes"),
    ] = 4 << 20
    batch_window: Annotated[
        float,
        Option("how long to wait for a fuller batch; 0 does not wait", 0, 3_600),
    ] = 0.0
    order: Annotated[
        EventOrder,
        Option("`partition` keeps the order of a partition, `key` of a key, `none` keeps none"),
    ] = "partition"
    parallelism: Annotated[
        int,
        Option("batches of one partition in flight; more than 1 needs `key` or `none`", 1, 1_024),
    ] = 1
    commit: Annotated[
        Commit,
        Option(
            'positions move together with the effects; `"before"` moves them before the run: at-most-once'
        ),
    ] = "after"
    timeout: Annotated[
        float,
        Option("how long one invocation may take; then its instance is killed", 0.001, 86_400),
    ] = 30.0
    retry: Annotated[Retry, Option("when a failed event is tried again")] = Retry()
    bisect: Annotated[bool, Option("halve a failing batch until the poison event is alone")] = True
    on_failure: Annotated[
        OnFailure, Option("what happens to an event whose attempts are used up")
    ] = DeadLetter()
    breaker: Annotated[
        Breaker | None,
        Option("circuit breaker: when to pause a failing function; `None` never does"),
    ] = Breaker()
    scaling: Annotated[Scaling, Option("how many instances")] = Scaling()
    resources: Annotated[Resources, Option("what one instance may use")] = Resources()
    concurrency: Annotated[
        Concurrency | None,
        Option(
            "how many runs at once, in all and per key; see [flow control](triggers.md#flow-control)"
        ),
    ] = None
    throttle: Annotated[Throttle | None, Option("how often runs begin; the others wait")] = None
    sample: Annotated[
        Sample | None, Option("how many events are run; the others count as done")
    ] = None
    debounce: Annotated[
        Debounce | None,
        Option("only the last event of a key counts, after a quiet time"),
    ] = None
    singleton: Annotated[Singleton | None, Option("one run of a key at a time")] = None
    priority: Annotated[Priority | None, Option("which waiting event goes first")] = None
    batch_per_key: Annotated[bool, Option("a batch holds events of one key only")] = False

    @property
    def per_key(self) -> tuple[str, ...]:
        """The options that distinguish keys, of those that are set."""
        names = [
            name
            for name in ("debounce", "singleton", "priority", "batch_per_key")
            if getattr(self, name)
        ]
        if self.concurrency is not None and self.concurrency.key_limit is not None:
            names.append("concurrency")
        if self.throttle is not None and self.throttle.per_key:
            names.append("throttle")
        return tuple(names)


class GivenOptions(TypedDict, total=False):
    """The same options as an author gives them: durations as any `Duration`, sizes as any `Size`; None means the default."""

    batch_size: int | None
    batch_bytes: Size | None
    batch_window: Duration | None
    order: EventOrder | None
    parallelism: int | None
    commit: Commit | None
    timeout: Duration | None
    retry: Retry | None
    bisect: bool | None
    on_failure: OnFailure | None
    breaker: Breaker | None
    scaling: Scaling | None
    resources: Resources | None
    concurrency: Concurrency | None
    throttle: Throttle | None
    sample: Sample | None
    debounce: Debounce | None
    singleton: Singleton | None
    priority: Priority | None
    batch_per_key: bool | None
