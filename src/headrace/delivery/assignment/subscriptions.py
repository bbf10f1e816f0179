"""Subscription of one function by one trigger, with a partition worker for each partition owned here.

In: assignments of the subscription, and new versions of the function. Out: running partition workers. A partition
changes to the next version between two units: the run in flight is committed first.
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
    """Objects that all subscriptions of a node share; owned by the partition supervisor.

    Attributes:
        breakers: By function.
        flows: By function.
        paused: Functions for which no new unit starts.
        halted: Receives the partitions that are halted, and why.
        unowned: Held while an operator's request changes a partition that no worker owns.
        supervise: Starts a task by this name that is restarted after failures, except those it
            halts for.
        scaler: Creates the scaler of a `Lag` trigger.
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
        reads: Its streams and start position.
        scaler: Starts its consumer runs, if its trigger is a `Lag`.
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
        self._assignments: deque[Assigned | Revoked] = deque()
        # Partitions that were revoked and not assigned again.
        self._revoked: set[int] = set()
        self._is_closing = False
        self._following: Supervised | None = None
        self._source: Supervised | None = None

    @property
    def is_fed(self) -> bool:
        """Return whether a source of the trigger appends to the stream that is read."""
        return self.reads is not self._trigger and not isinstance(self._trigger, Lag)

    @property
    def workers(self) -> list[PartitionWorker]:
        """Return the workers that own a partition now."""
        return [worker for worker, _ in self._workers.values() if not worker.is_over]

    def worker(self, partition: int) -> PartitionWorker | None:
        """Return the worker that owns the partition; None between two of them.

        A fenced worker is returned until the partition is claimed again, and refuses requests: the
        rows have another writer.
        """
        found = self._workers.get(partition)
        return None if found is None or (found[0].is_over and not found[0].fenced) else found[0]

    def is_coming(self, partition: int) -> bool:
        """Return whether a partition without a worker will get one, unless another node has it."""
        return not self._is_closing and partition not in self._revoked

    # --- start and stop ---------------------------------------------------------------------------

    def begin(self, before: asyncio.Task[None] | None = None) -> None:
        """Deliver from now on, once the former subscription `before` has ended."""
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
        """Change to another version: each partition once its run in flight has been committed."""
        self.function = function
        self._trigger = trigger
        self.reads = reads
        for worker, _ in self._workers.values():
            worker.stop()
        self._feed()

    def keep(self, function: FunctionSpec) -> None:
        """Continue with the same workers; only the code changes, so delays after failures end."""
        self.function = function
        for worker, _ in self._workers.values():
            worker.wake()

    def stop(self) -> None:
        """Start nothing new; `close` follows."""
        self._is_closing = True
        if self.is_fed:
            self._source = self._shared.sources.end(self.reads.streams[0])
        for worker, _ in self._workers.values():
            worker.stop()

    async def close(self) -> None:
        """Release everything, once all runs in flight have been committed."""
        self.stop()
        if self._source is not None:
            await self._source.stop()
        if self._following is not None:
            await self._following.stop()
        if self.scaler is not None:
            await self.scaler.close()
        # Workers first: closing the subscription closes their readers.
        await self._stop(list(self._workers))
        await self._subscription.close()

    # --- assignments ------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Start and stop partition workers as the subscription assigns partitions."""
        while True:
            if not self._assignments:
                self._assignments.append(await self._subscription.read())
            # Removed only after it was applied: a failure in between restarts this task, which
            # then repeats the assignment.
            match self._assignments[0]:
                case Assigned(partitions=partitions):
                    self._revoked.difference_update(partitions)
                    for partition in partitions:
                        await self._assign(partition)
                    hit("recovery:claimed")
                case Revoked(partitions=partitions):
                    self._revoked.update(partitions)
                    await self._stop(partitions)
                    await self._subscription.released(partitions)
            self._assignments.popleft()

    async def _assign(self, partition: int) -> None:
        if partition in self._workers:
            # Started by an earlier attempt at the same assignment.
            return
        name = f"worker {self.function.name} {','.join(self.reads.streams)}/{partition}"
        try:
            worker = await self._create_worker(partition)
        except Corrupt as error:
            # Only this partition halts: the others of the assignment are not damaged.
            self._shared.halted[self._key(partition)] = f"{type(error).__name__}: {error}"
            self._shared.on_failure(name, error)
            return
        watch = partial(self._watch, partition, deque([worker]))
        self._workers[partition] = worker, self._shared.supervise(watch, name, (Corrupt,))

    def _key(self, partition: int) -> Key:
        return self.function.name, self.reads.streams, partition

    async def _create_worker(self, partition: int) -> PartitionWorker:
        """Claim the partition and create a worker for the current version, not yet running."""
        while True:
            function, reads = self.function, self.reads
            claims = await self._shared.workers.claims(function.name, reads, partition)
            # The claim waits for the store; a new version may have been deployed meanwhile.
            if function is self.function:
                break
        # An author's filters and samples drop events; the results of windows must not be dropped.
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
        """Run the worker that is `made`, and after its end another one, from the state in the store.

        Raises:
            Corrupt: Stored bytes are damaged: the partition halts until an operator acts.
            Exception: The worker failed; the supervisor restarts this task.
        """
        key, halted = self._key(partition), self._shared.halted
        while True:
            try:
                if not made:
                    made.append(await self._create_worker(partition))
                if partition not in self._workers or self._is_closing:
                    return
                worker = made.popleft()
                self._workers[partition] = worker, self._workers[partition][1]
                halted.pop(key, None)
                # Waits for an operator's change of the rows: the worker reads them once, at its
                # start.
                async with self._shared.unowned[self.function.name, partition]:
                    pass
                await worker.run()
            except Exception as error:
                again = "" if isinstance(error, Corrupt) else "; restarts soon"
                halted[key] = f"{type(error).__name__}: {error}{again}"
                raise
            if worker.fenced:
                # The partition is still assigned to this node, so the other owner's assignment is
                # outdated: claim it again.
                halted[key] = "another owner has claimed the partition; claimed again soon"
                raise Fenced(halted[key])

    async def _stop(self, partitions: Sequence[int]) -> None:
        # All are stopped first and then awaited: one after the other would take the sum of their
        # runs.
        found = [self._workers.pop(each) for each in partitions if each in self._workers]
        for worker, _ in found:
            worker.stop()
        # The errors were reported by the supervisor of each task; here only their end counts.
        await asyncio.gather(*(watch.task for _, watch in found), return_exceptions=True)


async def _after(before: asyncio.Task[None], follow: Work) -> None:
    await asyncio.wait([before])
    await follow()
