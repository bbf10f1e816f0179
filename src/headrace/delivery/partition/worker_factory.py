"""Partition workers are made: a partition is claimed, and one value holds all that its loop is given.

In come a function, one of its triggers and a subscription; out goes a `PartitionWorker` that nobody runs yet.
What a trigger asks for (a pattern, row changes, a merge) becomes a reader or a filter here, so that
the loop knows nothing of it.
"""

from __future__ import annotations

import functools

from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.intake.row_changes import ChangeFilter, KeyedReader, Wants
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.positions import Claim, claim
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.patterns.record_filter import Selection
from headrace.runtime.base import Lead
from headrace.storage.log.base import Broker, Reader, Subscription
from headrace.telemetry.history import RunHistory

CLAIM_PAUSE_S = 0.5


class WorkerFactory:
    """Owned by the partition supervisor, one for the node."""

    def __init__(
        self,
        *,
        committer: Committer,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
        tasks: Tasks,
        runs: RunHistory,
        queues: ExternalConsumers,
        vetting: PublishChecks,
        lead: Lead | None,
    ) -> None:
        self._committer = committer
        self._storage = committer.storage
        self._broker = broker
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks
        self._runs = runs
        self._queues = queues
        self._vetting = vetting
        self._lead = lead

    async def claims(
        self, function: str, trigger: StreamTrigger, partition: int
    ) -> dict[str, Claim]:
        """Take the partition of each stream over, however long the store is away."""
        return {
            stream: await self._claim(function, stream, partition, trigger.start)
            for stream in trigger.streams
        }

    async def _claim(self, function: str, stream: str, partition: int, start: str) -> Claim:
        """Take the partition over, however long the store is away; again is harmless."""
        while True:
            try:
                return await claim(
                    self._storage,
                    self._broker,
                    function=function,
                    stream=stream,
                    partition=partition,
                    start=start,
                )
            except Unavailable:
                await self._clock.sleep(self._entropy.uniform(CLAIM_PAUSE_S / 2, CLAIM_PAUSE_S))

    def pump(
        self,
        function: FunctionSpec,
        trigger: StreamTrigger,
        subscription: Subscription,
        partition: int,
        claims: dict[str, Claim],
        *,
        breaker: CircuitBreaker,
        flow: FlowLimiter,
    ) -> PartitionWorker:
        """One partition's loop, with all that its function and trigger ask for; not yet running."""
        readers: list[Reader] = [
            subscription.reader(stream, partition, claimed.standing.progress.watermark)
            for stream, claimed in claims.items()
        ]
        wants: Wants | None = None if trigger.pattern is None else self._selection(trigger)
        if function.changes is not None and function.change_streams.intersection(claims):
            wants = ChangeFilter(wants, functools.partial(self._runs.skipped, function.name))
            if function.changes.keys:
                readers = [KeyedReader(reader, function.changes.keys) for reader in readers]
        return PartitionWorker(
            function,
            partition,
            claims,
            readers,
            committer=self._committer,
            invoker=self._queues,
            clock=self._clock,
            entropy=self._entropy,
            tasks=self._tasks,
            breaker=breaker,
            runs=self._runs,
            lateness=trigger.lateness,
            wants=wants,
            vet=functools.partial(self._vetting, function),
            flow=flow,
            recall=functools.partial(self._queues.recall, function.name),
            merges=self._merges(function, trigger, partition),
            lead=self._lead,
            compacted=frozenset(
                name for name in claims if self._broker.stream(name).cleanup == "compact"
            ),
        )

    def _selection(self, trigger: StreamTrigger) -> Selection:
        packed = {name for name in trigger.streams if self._broker.stream(name).codec == "msgpack"}
        return Selection(trigger.pattern or {}, msgpack=packed)

    def _merges(
        self, function: FunctionSpec, trigger: StreamTrigger, partition: int
    ) -> MergeOrderStore | None:
        """Where a merge's memory is kept; None where one stream is read by itself."""
        if len(trigger.streams) == 1:
            return None

        async def low(stream: str) -> int:
            return (await self._broker.extent(stream, partition)).low

        return MergeOrderStore(
            self._storage,
            low,
            function=function.name,
            streams=trigger.streams,
            partition=partition,
        )
