"""What one function reads because of one trigger: a subscription, and a partition worker for each partition owned here.

In come assignments of the subscription, and now and then another version of the function; out go running
partition workers. A partition passes from one version to the next between two units: the run in hand lands first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from headrace.delivery.assignment.lag_scaler import LagScaler
from headrace.delivery.assignment.source_supervisor import Key, SourceSupervisor
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.partition.worker_factory import WorkerFactory
from headrace.environment.failpoints import hit
from headrace.environment.supervised_task import Supervised, Work
from headrace.model.errors import Corrupt, Fenced
from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.files import Ends
from headrace.model.triggers.lag import Lag
from headrace.storage.log.base import Assigned, Revoked, Subscription


@dataclass(frozen=True)
class Shared:
    """What all readings of a node share; the partition supervisor's.

    Attributes:
        breakers: By function.
        flows: By function.
        paused: Functions for which nothing new is taken up.
        halted: Is told which partitions stand still, and why.
        unowned: Held while an operator's wish is done to a partition that no worker owns.
        supervise: Starts a task by this name that must not end by a failure, save by those it halts for.
        scaler: Makes what decides how many instances consume a lag.
    """

    workers: WorkerFactory
    sources: SourceSupervisor
    breakers: dict[str, CircuitBreaker]
    flows: dict[str, FlowLimiter]
    paused: set[str]
    halted: dict[Key, str]
    unowned: dict[tuple[str, int], asyncio.Lock]
    supervise: Callable[[Work, str, tuple[type[Exception], ...]], Supervised]
    scaler: Callable[[FunctionSpec, Lag, Subscription], LagScaler]
    on_failure: Callable[[str, BaseException], None]


class FunctionSubscription:
    """Owned by the partition supervisor. It follows its subscription from `begin` until it is closed.

    Attributes:
        function: The version that is delivered to.
        reads: What it reads, and from where it begins.
        scaler: Who decides over its instances, where its trigger is a lag.
    """

    def __init__(
        self,
        function: FunctionSpec,
        trigger: Trigger,
        reads: StreamTrigger,
        subscription: Subscription,
        shared: Shared,
    ) -> None:
        self.function = function
        self.reads = reads
        self.scaler: LagScaler | None = None
        self._trigger = trigger
        self._subscription = subscription
        self._shared = shared
        self._workers: dict[int, tuple[PartitionWorker, Supervised]] = {}
        self._told: deque[Assigned | Revoked] = deque()
        # Partitions that were taken away, and are not to be had again yet.
        self._revoked: set[int] = set()
        self._is_closing = False
        self._following: Supervised | None = None
        self._source: Supervised | None = None

    @property
    def is_fed(self) -> bool:
        """Whether a source of the trigger's own appends what is read."""
        return self.reads is not self._trigger and not isinstance(self._trigger, Lag)

    @property
    def workers(self) -> list[PartitionWorker]:
        """Those that own a partition now."""
        return [worker for worker, _ in self._workers.values() if not worker.is_over]

    def worker(self, partition: int) -> PartitionWorker | None:
        """The one that owns the partition; None between two of them.

        One that was fenced stands for it until the partition is claimed again, and refuses what is
        asked of it: the rows have another writer.
        """
        found = self._workers.get(partition)
        return None if found is None or (found[0].is_over and not found[0].fenced) else found[0]

    def is_coming(self, partition: int) -> bool:
        """Whether a partition that has no partition worker will get one, unless another node has it."""
        return not self._is_closing and partition not in self._revoked

    # --- its life ---------------------------------------------------------------------------

    def begin(self, before: asyncio.Task[None] | None = None) -> None:
        """Deliver from now on, once whoever read the same `before` has ended."""
        follow: Work = self._follow
        if isinstance(self._trigger, Lag):
            self.scaler = self._shared.scaler(self.function, self._trigger, self._subscription)
            follow = self.scaler.follow
        work = follow if before is None else partial(_after, before, follow)
        self._following = self._shared.supervise(work, f"follow {self.function.name}", ())
        self._feed()

    def _feed(self) -> None:
        if self.is_fed:
            self._shared.sources.start(self.function, self._trigger, self.reads.streams[0])

    def renew(self, function: FunctionSpec, trigger: Trigger, reads: StreamTrigger) -> None:
        """Go on by another version: partition by partition, once the run in hand has landed."""
        self.function = function
        self._trigger = trigger
        self.reads = reads
        for worker, _ in self._workers.values():
            worker.stop()
        self._feed()

    def keep(self, function: FunctionSpec) -> None:
        """Go on as before: only the code that runs is another, which has not failed yet."""
        self.function = function
        for worker, _ in self._workers.values():
            worker.wake()

    def stop(self) -> None:
        """Take up nothing new from now on; `close` follows."""
        self._is_closing = True
        if self.is_fed:
            self._source = self._shared.sources.end(self.reads.streams[0])
        for worker, _ in self._workers.values():
            worker.stop()

    async def close(self) -> None:
        """Let go, once what is in flight has ended and landed."""
        self.stop()
        if self._source is not None:
            await self._source.stop()
        if self._following is not None:
            await self._following.stop()
        if self.scaler is not None:
            await self.scaler.close()
        # Partition workers first: closing the subscription takes their readers away.
        await self._stop(list(self._workers))
        await self._subscription.close()

    # --- assignments ------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Start and stop partition workers as the subscription says; what is told stays so until it is done."""
        while True:
            if not self._told:
                self._told.append(await self._subscription.read())
            match self._told[0]:
                case Assigned(partitions=partitions):
                    self._revoked.difference_update(partitions)
                    for partition in partitions:
                        await self._assign(partition)
                    hit("recovery:claimed")
                case Revoked(partitions=partitions):
                    self._revoked.update(partitions)
                    await self._stop(partitions)
                    await self._subscription.released(partitions)
            self._told.popleft()

    async def _assign(self, partition: int) -> None:
        if partition in self._workers:
            # Begun before another partition of the same assignment could not be claimed.
            return
        name = f"worker {self.function.name} {','.join(self.reads.streams)}/{partition}"
        try:
            worker = await self._made(partition)
        except Corrupt as error:
            # The other partitions are not damaged.
            self._shared.halted[self._key(partition)] = f"{type(error).__name__}: {error}"
            self._shared.on_failure(name, error)
            return
        watch = partial(self._watch, partition, deque([worker]))
        self._workers[partition] = worker, self._shared.supervise(watch, name, (Corrupt,))

    def _key(self, partition: int) -> Key:
        return self.function.name, self.reads.streams, partition

    async def _made(self, partition: int) -> PartitionWorker:
        """A partition worker by the version there is now, not yet running; the partition is claimed for it."""
        while True:
            function, reads = self.function, self.reads
            claims = await self._shared.workers.claims(function.name, reads, partition)
            if function is self.function:
                break
        # What an author lets be left out is events, never what became of them.
        spec = function.for_ends() if isinstance(self._trigger, Ends) else function
        worker = self._shared.workers.worker(
            spec,
            reads,
            self._subscription,
            partition,
            claims,
            breaker=self._shared.breakers[function.name],
            flow=self._shared.flows[function.name],
        )
        worker.pause(function.name in self._shared.paused)
        return worker

    async def _watch(self, partition: int, made: deque[PartitionWorker]) -> None:
        """Run the partition worker that is `made`; after it ended another one, from what the store holds.

        Raises:
            Corrupt: Stored bytes are damaged: the partition halts until somebody has looked at them.
            Exception: It ended by a fault of ours, or of the store's, and is to be begun anew.
        """
        key, halted = self._key(partition), self._shared.halted
        while True:
            try:
                if not made:
                    made.append(await self._made(partition))
                if partition not in self._workers or self._is_closing:
                    return
                worker = made.popleft()
                self._workers[partition] = worker, self._workers[partition][1]
                halted.pop(key, None)
                async with self._shared.unowned[self.function.name, partition]:
                    pass
                await worker.run()
            except Exception as error:
                again = "" if isinstance(error, Corrupt) else "; begins anew soon"
                halted[key] = f"{type(error).__name__}: {error}{again}"
                raise
            if worker.fenced:
                # Still assigned to us: whoever claimed it late has to let go, so claim it anew.
                halted[key] = "another owner has taken the partition over; claimed anew soon"
                raise Fenced(halted[key])

    async def _stop(self, partitions: Sequence[int]) -> None:
        found = [self._workers.pop(each) for each in partitions if each in self._workers]
        for worker, _ in found:
            worker.stop()
        await asyncio.gather(*(watch.task for _, watch in found), return_exceptions=True)


async def _after(before: asyncio.Task[None], follow: Work) -> None:
    await asyncio.wait([before])
    await follow()
