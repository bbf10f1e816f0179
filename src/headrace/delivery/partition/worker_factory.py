"""Factory of partition workers: claims a partition, and collects the arguments of its worker.

In: a function, one of its triggers and a subscription. Out: a `PartitionWorker` that does not run yet. A trigger's options
(a pattern, row changes, a merge) become a reader or a filter here, so that the loop does not depend on them.
"""

from __future__ import annotations

import functools

from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.intake.row_changes import ChangeFilter, KeyedReader, Wants
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.settle import Settler, settle
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.positions import Claim, claim
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.model.errors import Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.patterns.record_filter import Selection
from headrace.runtime.base import Submit
from headrace.storage.log.base import Reader, Subscription

CLAIM_PAUSE_S = 0.5


class WorkerFactory:
    """Owned by the partition supervisor, one for the node."""

    def __init__(
        self,
        engine: Engine,
        *,
        submit: Submit,
        queues: ExternalConsumers,
        settle: Settler = settle,
    ) -> None:
        self._engine = engine
        self._submit = submit
        self._queues = queues
        self._settle = settle

    async def claims(
        self, function: str, trigger: StreamTrigger, partition: int
    ) -> dict[str, Claim]:
        """Claim the partition of each stream; wait while the store is unavailable."""
        return {
            stream: await self._claim(function, stream, partition, trigger.start)
            for stream in trigger.streams
        }

    async def _claim(self, function: str, stream: str, partition: int, start: str) -> Claim:
        """Claim the partition; wait while the store is unavailable. May be repeated."""
        while True:
            try:
                return await claim(
                    self._engine.storage,
                    self._engine.log,
                    function=function,
                    stream=stream,
                    partition=partition,
                    start=start,
                )
            except Unavailable:
                engine = self._engine
                # Jitter, so that the partitions of a node do not all retry at the same moment.
                await engine.clock.sleep(engine.random.uniform(CLAIM_PAUSE_S / 2, CLAIM_PAUSE_S))

    def worker(
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
        """Return the worker of one partition, as its function and trigger require; not yet running."""
        # From the watermark: the ledger skips finished offsets above it.
        readers: list[Reader] = [
            subscription.reader(stream, partition, claimed.position.progress.watermark)
            for stream, claimed in claims.items()
        ]
        # None rather than a filter that accepts everything: without a filter no event is decoded
        # here.
        wants: Wants | None = None if trigger.pattern is None else self._selection(trigger)
        if trigger.changes is not None:
            skipped = functools.partial(self._engine.telemetry.skipped, function.name)
            wants = ChangeFilter(wants, skipped)
            if trigger.changes.keys:
                readers = [KeyedReader(reader, trigger.changes.keys) for reader in readers]
        claimed = ClaimedPartition(
            function,
            partition,
            claims,
            readers,
            lateness=trigger.idle_timeout,
            wants=wants,
            merges=self._merges(function, trigger, partition),
            compacted=frozenset(
                name for name in claims if self._engine.log.stream(name).cleanup == "compact"
            ),
            settle=self._settle,
        )
        runtime = FunctionRuntime(
            self._submit,
            recall=functools.partial(self._queues.recall, function.name),
        )
        return PartitionWorker(
            claimed, engine=self._engine, runtime=runtime, breaker=breaker, flow=flow
        )

    def _selection(self, trigger: StreamTrigger) -> Selection:
        packed = {
            name for name in trigger.streams if self._engine.log.stream(name).codec == "msgpack"
        }
        return Selection(trigger.pattern or {}, msgpack=packed)

    def _merges(
        self, function: FunctionSpec, trigger: StreamTrigger, partition: int
    ) -> MergeOrderStore | None:
        """Return the store of a merge's order; None if a single stream is read."""
        if len(trigger.streams) == 1:
            return None

        async def low(stream: str) -> int:
            return (await self._engine.log.extent(stream, partition)).low

        return MergeOrderStore(
            self._engine.storage,
            low,
            function=function.name,
            streams=trigger.streams,
            partition=partition,
        )
