"""The parts of a node that do not depend on how functions run: delivery, bus, replays and services.

In: storage, log and what makes a runtime. Out: the parts, connected. `assembly` calls it with a fleet
of processes, `testing` with an inline runtime for each of its hosts; neither connects them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from headrace.bus.bus import Bus
from headrace.bus.http_target import Post
from headrace.bus.internal_functions import InternalFunctions
from headrace.bus.replay import Replays
from headrace.client.http_pool import HttpPool
from headrace.delivery.assignment.consumer_run import ConsumerRuns
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.calls.streaming import LiveAnswers
from headrace.delivery.engine import Engine
from headrace.delivery.hostcalls import host_services
from headrace.http.dependencies import Dependencies, Health
from headrace.node.http_services import build_services
from headrace.node.run_chain import chain_runs
from headrace.runtime.base import Interceptor, Runtime
from headrace.runtime.host_services import HostServices
from headrace.runtime.instance_views import ColdStarts, FailedStart
from headrace.security.access import Access
from headrace.security.operator_key import Operator
from headrace.security.secrets import Secrets
from headrace.storage.log.base import Broker


class StartedRuntime(Runtime, Protocol):
    """A runtime that says why its instances do not start: a fleet, or the inline one."""

    def failed_start(self, function: str) -> FailedStart | None:
        """Return why no instance of the function starts; None where instances start."""
        ...


R = TypeVar("R", bound=StartedRuntime)


class SharedParts(NamedTuple, Generic[R]):
    """Connected parts.

    Attributes:
        runtime: Runs the apps' functions.
        supervisor: Owner of the partition workers.
        bus: Rules and where they forward to.
        replays: Replays of the bus.
        services: Services behind the HTTP server.
    """

    runtime: R
    supervisor: PartitionSupervisor
    bus: Bus
    replays: Replays
    services: Dependencies


def connect_parts(
    runtime_for: Callable[[HostServices], R],
    *,
    engine: Engine,
    delivered: Broker | None = None,
    secrets: Secrets,
    post: Post,
    outgoing: HttpPool,
    operator: Operator,
    access: Access,
    check_answers: bool,
    health: Callable[[], Health],
    instances: Callable[[], Sequence[msgspec.Struct]],
    cold_starts: Callable[[], ColdStarts],
    on_failure: Callable[[str, BaseException], None],
    folder: Path | None = None,
    outside: bool = True,
    interceptors: Sequence[Interceptor] = (),
) -> SharedParts[R]:
    """Make and connect the parts; nothing starts yet.

    Args:
        runtime_for: Makes the runtime, given the answers to what running functions ask.
        engine: Storage, log, time, chance and tasks.
        delivered: The log as delivery reads it, where that differs (a test's faults).
        secrets: Secrets by name.
        post: Sends requests to HTTP targets.
        outgoing: Connections to other services.
        operator: Proof of who operates the node.
        access: Clients that the platform's own paths are for.
        check_answers: Whether answers are held against what routes declare.
        health: Whether work is taken now.
        instances: Processes of functions.
        cold_starts: How long their starts took.
        on_failure: Called with the name and the error of a task that failed.
        folder: The data folder; None without one.
        outside: Whether sources outside of the node are read.
        interceptors: See every run, before any other interceptor.
    """
    storage, broker, clock, entropy = engine.storage, engine.log, engine.clock, engine.random
    consumer_runs, answers = ConsumerRuns(), LiveAnswers()
    runtime = runtime_for(host_services(storage, clock, consumer_runs, answers, secrets))
    internal = InternalFunctions(clock, engine.tasks)
    delivering = engine if delivered is None else replace(engine, log=delivered)
    supervisor = PartitionSupervisor(
        engine=delivering,
        runtime=chain_runs(
            runtime,
            engine=delivering,
            internal=internal,
            consumer_runs=consumer_runs,
            outermost=interceptors,
        ),
        on_failure=on_failure,
        folder=folder,
        outside=outside,
    )
    bus = Bus(supervisor, internal, storage=storage, broker=broker, post=post, secrets=secrets)
    replays = Replays(
        bus,
        committer=engine.committer,
        broker=broker,
        clock=clock,
        entropy=entropy,
        on_failure=on_failure,
    )
    services = build_services(
        supervisor,
        answers=answers,
        replays=replays,
        runs=engine.telemetry,
        storage=storage,
        broker=broker,
        clock=clock,
        entropy=entropy,
        secrets=secrets,
        operator=operator,
        outgoing=outgoing,
        access=access,
        check_answers=check_answers,
        health=health,
        instances=instances,
        cold_starts=cold_starts,
        failed_start=runtime.failed_start,
    )
    return SharedParts(runtime, supervisor, bus, replays, services)
