"""Chunks and units for the tests of delivery's pure parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from headrace.delivery.assignment.consumer_run import ConsumerRuns
from headrace.delivery.assignment.node_runtime import DeployedFunctions, NodeRuntime
from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.engine import Engine
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.delivery.unit import Unit
from headrace.environment.clock import Clock, SystemClock
from headrace.environment.randomness import SeededEntropy, SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.event import Event
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Outcome
from headrace.model.record import Chunk, encode_events
from headrace.runtime.base import Run, Submit, Waiter
from headrace.runtime.task_run import TaskRun
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker
from headrace.telemetry.history import RunHistory

TROUBLE = Cause("ValueError", "no")


def submits(tasks: Tasks, work: Callable[[Invocation], Awaitable[Outcome]]) -> Submit:
    """Starts runs that are a coroutine of the test."""

    def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
        return TaskRun(tasks, work, invocation, done)

    return submit


def publish_checks_of(broker: Broker) -> PublishChecks:
    """The publish checks of a node with this log."""
    delays = DelayedAppends(SystemClock(), SystemEntropy())
    return PublishChecks(broker, delays, RunHistory())


def runtime_over(engine: Engine, submit: Submit) -> NodeRuntime:
    """Make what a partition supervisor is given, without interceptors."""
    delays = DelayedAppends(engine.clock, engine.random)
    return NodeRuntime(
        submit=submit,
        functions=DeployedFunctions(),
        publish_checks=PublishChecks(engine.log, delays, engine.telemetry),
        queues=ExternalConsumers(engine.storage, engine.clock, engine.random, engine.tasks),
        consumer_runs=ConsumerRuns(),
        delayed_appends=delays,
    )


def chunk(
    count: int,
    first: int = 0,
    *,
    stream: str = "s",
    keys: Sequence[str | None] | None = None,
    times: Sequence[int] | None = None,
    offsets: tuple[int, ...] | None = None,
    appended: int = 0,
    hops: int = 0,
) -> Chunk:
    """`count` events whose values are their offsets."""
    places = offsets if offsets is not None else tuple(range(first, first + count))
    events = [
        Event(
            b"%d" % place,
            keys[index] if keys is not None else None,
            times[index] if times is not None else None,
        )
        for index, place in enumerate(places)
    ]
    return Chunk(
        stream, 0, first, count, encode_events(events), appended, 0, count, hops, "", offsets
    )


def unit(count: int, first: int = 0, *, attempts: int = 0) -> Unit:
    """A unit of one chunk."""
    return Unit((chunk(count, first),), attempts)


def offsets_of(chunks: Sequence[Chunk]) -> list[int]:
    """The offsets meant, in order; checked against the events' own values."""
    found = [
        (one.offset_of(one.low + index), int(event.value))
        for one in chunks
        for index, event in enumerate(one.events())
    ]
    assert all(place == value for place, value in found)
    return [place for place, _ in found]


def engine_over(
    storage: Storage, broker: Broker, clock: Clock, tasks: Tasks | None = None
) -> Engine:
    """What workers and consumer runs stand on, without chance and with a history of its own."""
    return Engine(
        Committer(storage),
        broker,
        clock,
        SeededEntropy(1),
        tasks or Tasks(lambda name, error: None),
        RunHistory(),
    )
