"""Exactly what the HTTP server needs of the node, in one value filled in by assembly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from headrace.admin.dead_letters import DeadLetters
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
from headrace.delivery.publisher import Publisher
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.runtime.instance_views import ColdStarts, FailedStarts, every_start_succeeds
from headrace.security.access import Access
from headrace.security.operator_key import Operator
from headrace.security.secrets import Secrets
from headrace.security.signed_addresses import AddressSigner
from headrace.security.tokens import Tokens
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker
from headrace.telemetry.history import RunHistory


class Health(msgspec.Struct, frozen=True):
    """The node's readiness for work.

    Attributes:
        ready: Whether the node takes work now.
        reason: Why not; "" where it does.
        checks: The result of each check, by name.
    """

    ready: bool
    reason: str = ""
    checks: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """The HTTP server's view of the node. Owned by assembly; the HTTP server only calls what is in it.

    Attributes:
        instances: The fleet's instances, each a struct with at least `function` and `state`.
        cold_starts: The durations of cold starts.
        failed_start: Why no instance of a function starts.
        access: The clients that may use the platform's own paths; see `security/access`.
        health: The node's readiness, evaluated at every `/readyz`.
        check_answers: Whether functions' answers are checked against their routes' types.
    """

    publisher: Publisher
    direct: DirectCalls
    dead_letters: DeadLetters
    parking: ParkedKeys
    explainer: Explainer
    lag: LagReport
    sources: Sources
    queues: Queues
    runs: RunHistory
    schedules: Schedules
    windows: OpenWindows
    replays: Replays
    supervisor: PartitionSupervisor
    broker: Broker
    storage: Storage
    instances: Callable[[], Sequence[msgspec.Struct]]
    health: Callable[[], Health]
    clock: Clock
    entropy: Entropy
    tokens: Tokens
    secrets: Secrets
    address_signer: AddressSigner
    outgoing: HttpPool
    operator: Operator
    access: Access = "token"
    check_answers: bool = False
    cold_starts: Callable[[], ColdStarts] = ColdStarts
    failed_start: FailedStarts = every_start_succeeds
