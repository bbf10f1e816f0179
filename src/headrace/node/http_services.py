"""The services behind an HTTP server: everything that it calls, and none of it needs a process of functions.

In: storage, log, the partition supervisor and the runner of functions. Out: what `http` may call. Called by `shared_parts` alone, for a node and for each host of `testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headrace.admin.dead_letters import DeadLetters
from headrace.admin.delivery_states import DeliveryStates
from headrace.admin.explain import Explainer
from headrace.admin.lag import LagReport
from headrace.admin.parked_keys import ParkedKeys
from headrace.admin.queues import Queues
from headrace.admin.schedules import Schedules
from headrace.admin.sources import Sources
from headrace.admin.windows import OpenWindows
from headrace.bus.replay import Replays
from headrace.client.http_pool import HttpPool
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.calls.direct import DirectCalls
from headrace.delivery.calls.streaming import LiveAnswers
from headrace.delivery.publisher import Publisher
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.http.dependencies import Dependencies, Health
from headrace.runtime.instance_views import ColdStarts, FailedStarts
from headrace.security.access import Access
from headrace.security.operator_key import Operator
from headrace.security.secrets import Secrets
from headrace.security.signed_addresses import AddressSigner
from headrace.security.tokens import Tokens
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker
from headrace.telemetry.history import RunHistory


def build_services(
    supervisor: PartitionSupervisor,
    *,
    answers: LiveAnswers,
    replays: Replays,
    runs: RunHistory,
    storage: Storage,
    broker: Broker,
    clock: Clock,
    entropy: Entropy,
    secrets: Secrets,
    operator: Operator,
    outgoing: HttpPool,
    access: Access,
    check_answers: bool,
    health: Callable[[], Health],
    instances: Callable[[], Sequence[msgspec.Struct]],
    cold_starts: Callable[[], ColdStarts],
    failed_start: FailedStarts,
) -> Dependencies:
    """Build the services that the HTTP server calls.

    Args:
        supervisor: Owner of the partition workers.
        answers: Streamed answers of running calls; the same object as the host services have.
        replays: Replays of the bus.
        runs: History of invocations.
        storage: Key-value storage.
        broker: The log.
        clock: The time.
        entropy: Random numbers.
        secrets: Secrets by name.
        outgoing: Connections to other services.
        operator: Proof of who operates the node.
        access: Clients that need no token at the platform's own paths.
        check_answers: Whether answers are held against what routes declare.
        health: Whether work is taken now.
        instances: Processes of functions.
        cold_starts: How long their starts took.
        failed_start: Why no process of a function starts.
    """
    states = DeliveryStates(supervisor, failed_start)
    lag = LagReport(storage, broker, states, clock)
    dead_letters = DeadLetters(storage, supervisor, clock)
    return Dependencies(
        publisher=Publisher(broker, supervisor.committer, supervisor.delays),
        direct=DirectCalls(
            supervisor.functions,
            committer=supervisor.committer,
            submit=supervisor.submit,
            clock=clock,
            entropy=entropy,
            runs=runs,
            answers=answers,
        ),
        dead_letters=dead_letters,
        parking=ParkedKeys(storage, supervisor, clock),
        explainer=Explainer(storage, broker, states),
        lag=lag,
        sources=Sources(supervisor, clock),
        queues=Queues(supervisor, lag, dead_letters, storage=storage, broker=broker, clock=clock),
        runs=runs,
        schedules=Schedules(supervisor, clock=clock, entropy=entropy),
        windows=OpenWindows(supervisor, broker=broker, clock=clock, entropy=entropy),
        replays=replays,
        supervisor=supervisor,
        broker=broker,
        storage=storage,
        instances=instances,
        health=health,
        clock=clock,
        entropy=entropy,
        tokens=Tokens(storage, clock, entropy),
        secrets=secrets,
        address_signer=AddressSigner(storage, entropy),
        outgoing=outgoing,
        operator=operator,
        access=access,
        check_answers=check_answers,
        cold_starts=cold_starts,
        failed_start=failed_start,
    )
