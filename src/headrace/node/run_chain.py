"""The one chain of interceptors that every run of a node passes.

In: the runtime's own `submit`, which nothing else may call. Out: the `submit` that partition workers,
calls, consumer runs and custom triggers are given, on a node and on each host of a test alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.bus.internal_functions import InternalFunctions
from headrace.delivery.assignment.consumer_run import ConsumerRuns
from headrace.delivery.assignment.node_runtime import DeployedFunctions, NodeRuntime
from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.engine import Engine
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.runtime.base import Interceptor, Runtime, intercepted


def chain_runs(
    runtime: Runtime,
    *,
    engine: Engine,
    internal: InternalFunctions,
    consumer_runs: ConsumerRuns,
    outermost: Sequence[Interceptor] = (),
) -> NodeRuntime:
    """Compose the chain, from the outside in.

    Args:
        runtime: Runs the apps' functions.
        engine: Storage, log, time, chance and tasks.
        internal: The platform's own functions.
        consumer_runs: Runs that fetch events themselves.
        outermost: Interceptors in front of the node's own.
    """
    functions, delayed_appends = DeployedFunctions(), DelayedAppends(engine.clock, engine.random)
    publish_checks = PublishChecks(engine.log, delayed_appends, engine.telemetry)
    queues = ExternalConsumers(engine.storage, engine.clock, engine.random, engine.tasks)
    chain = (
        *outermost,
        # In front of all that answer runs themselves: what those publish is checked as well.
        publish_checks.intercept(functions.find),
        queues.intercept,
        internal.intercept,
    )
    return NodeRuntime(
        submit=intercepted(runtime.submit, chain),
        functions=functions,
        publish_checks=publish_checks,
        queues=queues,
        consumer_runs=consumer_runs,
        delayed_appends=delayed_appends,
    )
