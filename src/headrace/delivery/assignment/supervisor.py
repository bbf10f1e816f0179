"""Deployed functions and their delivery: a subscription for each function and trigger.

In: apps, again whenever they change. Out: subscriptions, whose partition workers deliver. Names switch immediately and
partitions follow one by one (ADR 0037). An operator's request about a partition is passed to the partition worker that
owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from headrace.delivery.assignment.changeover import Step, Streams, steps
from headrace.delivery.assignment.lag_scaler import LagScaler
from headrace.delivery.assignment.node_runtime import NodeRuntime
from headrace.delivery.assignment.seek import move, move_to_end, must_merge_alike
from headrace.delivery.assignment.source_supervisor import Key, SourceSupervisor
from headrace.delivery.assignment.subscriptions import FunctionSubscription, Shared
from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import BreakerState, CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.partition.worker_factory import WorkerFactory
from headrace.delivery.positions import fence_as_stored, start_offset
from headrace.delivery.queues.delayed import DelayedMessages
from headrace.delivery.unknown_function import unknown_function
from headrace.environment.supervised_task import Supervised, TaskFailure, Work
from headrace.model.errors import Misuse, Unavailable
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.triggers.base import StreamTrigger, Trigger, listeners, own_settings
from headrace.model.triggers.files import Ends
from headrace.model.triggers.lag import Lag
from headrace.runtime.base import invoke
from headrace.sources.open import SourceContext
from headrace.sources.schedules.schedule_queue import ScheduleQueue
from headrace.sources.trigger_checks import check_patterns
from headrace.storage.kv.base import Commit
from headrace.storage.log.base import Subscription
from headrace.topology.external_consumers import consumer_of


@dataclass
class PreparedDeployment:
    """A deployment of an app that cannot fail any more; see `PartitionSupervisor.prepare`.

    Attributes:
        app: The app to deploy.
        functions: Its functions, and the outside consumers of its queues, by name.
        flows: Limiters of new and changed functions, loaded from the store.
        subscriptions: New subscriptions, by function and streams.
    """

    app: AppSpec
    functions: dict[str, FunctionSpec]
    flows: dict[str, FlowLimiter] = field(default_factory=dict)
    subscriptions: dict[tuple[str, Streams], Subscription] = field(default_factory=dict)


class PartitionSupervisor:
    """Owns every partition worker of the node. Used by the node's main task and by the HTTP server.

    It also owns the tasks of its engine, and closes them.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        runtime: NodeRuntime,
        on_failure: Callable[[str, BaseException], None],
        folder: Path | None = None,
        outside: bool = True,
    ) -> None:
        self.apps: dict[str, AppSpec] = {}
        self.functions = runtime.functions.current
        self.breakers: dict[str, CircuitBreaker] = {}
        self.halted: dict[Key, str] = {}
        self._flows: dict[str, FlowLimiter] = {}
        self._on_failure = on_failure
        self._engine = engine
        self.committer = engine.committer
        self._runtime = runtime
        self.submit = runtime.submit
        self.queues = runtime.queues
        log, clock = engine.log, engine.clock
        # By function first: a node may have thousands, and most lookups are for one.
        self._readings: defaultdict[str, dict[Streams, FunctionSubscription]] = defaultdict(dict)
        self._readers: defaultdict[str, set[str]] = defaultdict(set)
        # Removed subscriptions whose runs in flight have not ended.
        self._leaving: dict[tuple[str, Streams], asyncio.Task[None]] = {}
        self._removed = runtime.functions.removed
        self._paused: set[str] = set()
        self._is_closing = False
        # Held while an operator's request changes rows of a partition that no worker here owns.
        self._unowned: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.delays = DelayedMessages(
            committer=engine.committer,
            broker=log,
            clock=clock,
            appends=runtime.delayed_appends,
            on_failure=on_failure,
        )
        around = SourceContext(
            clock,
            engine.random,
            folder,
            log,
            partial(invoke, self.submit),
            outside=outside,
            agenda=ScheduleQueue(clock, engine.tasks),
        )
        self.sources = SourceSupervisor(around, engine=engine, halted=self.halted)
        self._workers = WorkerFactory(engine, submit=self.submit, queues=self.queues)
        self._shared = Shared(
            workers=self._workers,
            sources=self.sources,
            breakers=self.breakers,
            flows=self._flows,
            paused=self._paused,
            halted=self.halted,
            unowned=self._unowned,
            supervise=self._supervise,
            scaler=self._scaler,
            on_failure=on_failure,
        )
        self._delaying: Supervised | None = None

    def troubles(self) -> dict[str, TaskFailure]:
        """Return the failures of supervised tasks by name: sources, delays, subscriptions."""
        return self._engine.tasks.troubles()

    # --- deployment -------------------------------------------------------------------------

    async def deploy(self, app: AppSpec) -> None:
        """Declare the app's streams and deliver to its functions; again with a changed app is fine.

        Raises:
            Misuse: A stream or trigger cannot be what the app asks for; all goes on as before.
            Unavailable: The node is stopping.
        """
        self.switch(await self.prepare(app))

    async def prepare(self, app: AppSpec) -> PreparedDeployment:
        """Do everything in a deployment that may fail, before delivery changes: declare, open and load.

        Raises:
            Misuse: A stream or trigger cannot be what the app asks for.
            Unavailable: The node is stopping.
        """
        # Before anything is declared, so that a refused deployment leaves nothing behind.
        check_patterns(app)
        for stream in app.streams:
            await self._engine.log.declare(stream)
        for function in app.functions:
            for trigger, reads in listeners(function.name, function.triggers):
                if reads is not trigger and not isinstance(trigger, Lag):
                    self.sources.check(function, trigger)
                    own = StreamSpec(
                        name=reads.streams[0], owner=app.name, private=True, **own_settings(trigger)
                    )
                    await self._engine.log.declare(own)
        consumers = [found for stream in app.streams if (found := consumer_of(stream, app.name))]
        for consumer in consumers:
            await self.queues.open(consumer)
        prepared = PreparedDeployment(
            app, {each.name: each for each in (*app.functions, *consumers)}
        )
        for function in prepared.functions.values():
            if self.functions.get(function.name) != function:
                # Loaded here, since `switch` must not wait.
                prepared.flows[function.name] = flow = FlowLimiter(function)
                await flow.load(self._engine.storage, self._engine.clock.now())
        # No `await` from here to the end, or `close` could miss the subscriptions that are opened
        # below.
        if self._is_closing:
            raise Unavailable(f"the node is stopping; `{app.name}` is not deployed any more")
        for function in prepared.functions.values():
            for streams, step in steps(self.functions.get(function.name), function).items():
                if step in {Step.OPEN, Step.REPLACE}:
                    joined = self._engine.log.subscribe(function.name, streams)
                    prepared.subscriptions[function.name, streams] = joined
        return prepared

    def switch(self, prepared: PreparedDeployment) -> None:
        """Deliver as prepared: names switch immediately, partitions after their runs in flight."""
        app = prepared.app
        # Started with the first deployment: before it there is no queue.
        if self._delaying is None:
            self._delaying = self._supervise(self.delays.run, "delays")
        if self.apps.get(app.name) != app:
            # An unchanged app keeps its object, so that callers compare by identity.
            self.apps[app.name] = app
        gone = [
            name
            for name, function in self.functions.items()
            if function.app == app.name and name not in prepared.functions
        ]
        for name in gone:
            old = self.functions.pop(name)
            for streams in steps(old, None):
                self._close(name, streams)
            if any(name == leaving for leaving, _ in self._leaving):
                # Its runs in flight still need its description, to be checked and committed.
                self._removed[name] = old
        for name, function in prepared.functions.items():
            if (known := self.functions.get(name)) != function:
                self.functions[name] = function
                self._take_up(known, function, prepared)

    def _take_up(
        self, old: FunctionSpec | None, function: FunctionSpec, prepared: PreparedDeployment
    ) -> None:
        """Change a function to its next version, or start delivering to it."""
        name = function.name
        if old is None:
            self.breakers[name] = CircuitBreaker(function.breaker)
            self._flows[name] = prepared.flows[name]
        else:
            self.breakers[name].renew(function.breaker)
            self._flows[name].renew(function, prepared.flows[name])
        triggers = {
            reads.streams: (each, reads) for each, reads in listeners(name, function.triggers)
        }
        for streams, step in steps(old, function).items():
            reading = self._readings[name].get(streams)
            if reading is None or step in {Step.REPLACE, Step.CLOSE}:
                self._close(name, streams)
                if step is not Step.CLOSE:
                    self._open(function, *triggers[streams], prepared)
            elif step is Step.RENEW:
                reading.renew(function, *triggers[streams])
            else:
                reading.keep(function)

    def _open(
        self,
        function: FunctionSpec,
        trigger: Trigger,
        reads: StreamTrigger,
        prepared: PreparedDeployment,
    ) -> None:
        subscription = prepared.subscriptions[function.name, reads.streams]
        reading = FunctionSubscription(function, trigger, reads, subscription, self._shared)
        self._readings[function.name][reads.streams] = reading
        for stream in reads.streams:
            self._readers[stream].add(function.name)
        reading.begin(self._leaving.get((function.name, reads.streams)))

    def _close(self, name: str, streams: Streams) -> None:
        """Stop delivering these streams to the function; its runs in flight end meanwhile."""
        if (reading := self._readings[name].pop(streams, None)) is None:
            return
        if not self._readings[name]:
            self._readings.pop(name)
        for stream in streams:
            if not any(stream in each for each in self._readings.get(name, ())):
                self._readers[stream].discard(name)
        reading.stop()
        before = self._leaving.get((name, streams))
        task = self._engine.tasks.start(_let_go(reading, before), name=f"withdraw {name}")
        self._leaving[name, streams] = task
        task.add_done_callback(partial(self._left, (name, streams)))

    def _left(self, key: tuple[str, Streams], task: asyncio.Task[None]) -> None:
        if self._leaving.get(key) is task:
            del self._leaving[key]
            if not any(key[0] == leaving for leaving, _ in self._leaving):
                self._removed.pop(key[0], None)

    def leaving(self, prefix: str) -> set[str]:
        """Return the functions with a prefix that have stopped reading a stream and still have runs in flight."""
        return {name for name, _ in self._leaving if name.startswith(prefix)}

    async def left(self, prefix: str) -> None:
        """Wait until no function with the prefix has such runs."""
        while found := [
            task for (name, _), task in self._leaving.items() if name.startswith(prefix)
        ]:
            await asyncio.wait(found)

    def _supervise(
        self, work: Work, name: str, halts: tuple[type[Exception], ...] = ()
    ) -> Supervised:
        engine = self._engine
        return engine.tasks.supervise(work, name=name, backoff=engine.backoff(), halts=halts)

    def _scaler(
        self, function: FunctionSpec, trigger: Lag, subscription: Subscription
    ) -> LagScaler:
        scaler = LagScaler(
            function,
            trigger,
            subscription,
            engine=self._engine,
            submit=self.submit,
            consumer_runs=self._runtime.consumer_runs,
            publish_checks=self._runtime.publish_checks,
        )
        scaler.paused = function.name in self._paused
        return scaler

    async def close(self, grace: float) -> None:
        """Start no new work, let runs in flight end and commit, then release everything.

        Runs that have not committed within `grace` seconds are abandoned; the next owner delivers
        their events again. May be called again.
        """
        if self._engine.tasks.closed:
            return
        self._is_closing = True
        for name, readings in list(self._readings.items()):
            for streams in list(readings):
                self._close(name, streams)
        if self._leaving:
            with contextlib.suppress(TimeoutError):
                await self._engine.clock.timeout(
                    asyncio.gather(*self._leaving.values(), return_exceptions=True), grace
                )
        await self._engine.tasks.close()

    # --- operators' requests ------------------------------------------------------------------

    def _of(self, function: str) -> list[FunctionSubscription]:
        return list(self._readings.get(function, {}).values())

    def worker(self, function: str, stream: str, partition: int) -> PartitionWorker | None:
        """Return the partition worker that owns the partition here; None if there is none."""
        for reading in self._of(function):
            if stream in reading.reads.streams and (found := reading.worker(partition)) is not None:
                return found
        return None

    def _scaler_of(self, function: str) -> LagScaler | None:
        """Return the function's scaler, if its trigger is a `Lag`."""
        return next((each.scaler for each in self._of(function) if each.scaler is not None), None)

    def partitions(self, function: str) -> list[tuple[str, int]]:
        """Return every (stream, partition) that the function reads.

        Raises:
            Unknown: It is not deployed.
        """
        return [
            (stream, partition)
            for _, reads in listeners(function, self.known(function).triggers)
            for stream in reads.streams
            for partition in range(self._engine.log.stream(stream).partitions)
        ]

    def readers(self, stream: str) -> list[str]:
        """Return the functions that read a stream, also a private one of a trigger."""
        return sorted(self._readers.get(stream, ()))

    def state_of(self, function: str, stream: str, partition: int) -> str:
        """Return the state of delivery to this partition, in words."""
        worker = self.worker(function, stream, partition)
        reads = [each.reads.streams for each in self._of(function) if stream in each.reads.streams]
        for streams in (*reads, (stream, "source")):
            if (why := self.halted.get((function, streams, partition))) is not None:
                return f"halted: {why}"
        if (scaler := self._scaler_of(function)) is not None:
            return scaler.state_of(partition)
        if worker is None:
            reading = (each for each in self._of(function) if stream in each.reads.streams)
            return "starting" if any(each.is_coming(partition) for each in reading) else "stopped"
        if worker.paused:
            return "paused"
        if self.breakers[function].state is BreakerState.OPEN:
            return "circuit breaker open"
        return "retrying" if worker.is_retrying else "running"

    def known(self, function: str) -> FunctionSpec:
        """Return the function's description.

        Raises:
            Unknown: It is not deployed.
        """
        if function not in self.functions:
            raise unknown_function(function, self.functions)
        return self.functions[function]

    async def with_owner(
        self, function: str, stream: str, partition: int, work: Callable[[Commit], Awaitable[None]]
    ) -> None:
        """Do `work` on a partition's rows while its only writer is paused; the writer then reads them again.

        Commits of the work are fenced: they fail once another owner claims the partition.

        Raises:
            Fenced: Another owner has claimed the partition.
        """
        worker = self.worker(function, stream, partition)
        if worker is None:
            # A worker that starts meanwhile waits for this lock, since it reads the rows once, at
            # its start.
            async with self._unowned[function, partition]:
                fence = await fence_as_stored(self._engine.storage, function, (stream, partition))
                await work(self.committer.fenced((fence,)))
            if (scaler := self._scaler_of(function)) is not None:
                # The change fences a consumer run that holds the partition; the scaler starts
                # another.
                scaler.wake()
        else:
            await worker.request(work)

    def pause(self, function: str) -> None:
        """Start no new unit of the function."""
        self.known(function)
        # By name, so that a pause outlasts a deployment.
        self._paused.add(function)
        self._pause(function, paused=True)

    def resume(self, function: str) -> None:
        """Continue after `pause`."""
        self.known(function)
        self._paused.discard(function)
        self._pause(function, paused=False)

    def _pause(self, function: str, *, paused: bool) -> None:
        for reading in self._of(function):
            if reading.scaler is not None:
                reading.scaler.pause(paused)
            for worker in reading.workers:
                worker.pause(paused)

    async def reset(self, function: str, start: str, *, order_of: str | None = None) -> None:
        """Move the function to `start` in all its streams; see `start_offset`.

        Args:
            function: Its name.
            start: The new position.
            order_of: Merge in the order of this function, as far as that has merged.

        Raises:
            Unknown: There is no such function.
            Misuse: `start` is not a place, or the two do not merge the same streams.
        """
        spec = self.known(function)
        if order_of is not None:
            must_merge_alike(spec, self.known(order_of))
        for trigger, reads in listeners(function, spec.triggers):
            if isinstance(trigger, Ends):
                # The result of a closed window is sent once. Windows that are computed again close
                # again and send again.
                continue
            for partition in range(self._engine.log.stream(reads.streams[0]).partitions):
                offsets = {
                    stream: await start_offset(self._engine.log, stream, partition, start)
                    for stream in reads.streams
                }

                async def work(
                    commit: Commit, partition: int = partition, offsets: dict[str, int] = offsets
                ) -> None:
                    app = spec.app if spec.ends is not None else ""
                    await move(
                        self._engine.storage,
                        commit,
                        function,
                        partition,
                        offsets,
                        order_of,
                        app=app,
                    )

                await self.with_owner(function, reads.streams[0], partition, work)

    async def empty(self, function: str, stream: str, partition: int) -> int:
        """Mark everything that waits in one partition of a stream as done; return how many events that were.

        Runs in flight are awaited first, or recalled from programs outside.

        Raises:
            Misuse: The function merges the stream with others.
        """
        count = 0

        async def work(commit: Commit) -> None:
            nonlocal count
            count = await move_to_end(
                self._engine.storage, self._engine.log, commit, function, stream, partition
            )

        for _, reads in listeners(function, self.known(function).triggers):
            # Skipping one stream alone would change the order in which the others are merged.
            if stream in reads.streams and len(reads.streams) > 1:
                raise Misuse(f"`{function}` merges `{stream}` with other streams; reset it instead")
        await self.with_owner(function, stream, partition, work)
        return count


async def _let_go(reading: FunctionSubscription, before: asyncio.Task[None] | None) -> None:
    """Close a subscription, then wait for the former one of the same streams."""
    await reading.close()
    if before is not None:
        await asyncio.wait([before])
