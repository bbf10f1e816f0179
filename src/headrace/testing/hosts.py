"""One store, and the hosts that come and go over it: the common base of a world and a simulation.

In: apps and a seed. Out: a node of the real parts (publisher, partition supervisor, partition workers) over the in-memory
twins, on virtual time. When its host dies, a new one starts and resumes from the storage.
It judges nothing; it only makes things happen.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Mapping, Sequence
from random import Random  # noqa: TID251 - mixes the scheduler's order, from the seed
from typing import Any, TypeVar, cast

import msgspec

from headrace.bus.http_target import HttpRequest
from headrace.client.http_pool import HttpPool
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.commit.committer import Committer
from headrace.delivery.engine import Engine
from headrace.delivery.partition.retention_holds import lowest_owed
from headrace.delivery.publisher import PublishReceipt
from headrace.delivery.queues.delayed import DelayedMessages
from headrace.environment import failpoints
from headrace.environment.randomness import SeededEntropy
from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.http.dependencies import Dependencies, Health
from headrace.model.effects import Space
from headrace.model.errors import Conflict, Fenced, Unavailable
from headrace.model.event import Event
from headrace.model.function import AppSpec, StreamSpec
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.model.record import Append, Chunk, encode_events
from headrace.node.shared_parts import connect_parts
from headrace.runtime.base import Interceptor
from headrace.runtime.inline import InlineRuntime
from headrace.runtime.instance_views import ColdStarts
from headrace.sdk.app import App
from headrace.security.operator_key import Operator
from headrace.security.secrets import Secrets
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.base import Broker
from headrace.storage.log.memory import MemoryBroker, MemoryLog
from headrace.storage.log.remote_memory import RemoteMemoryLog, RemoteStreams
from headrace.storage.outbox import LogOutbox
from headrace.telemetry.history import RunHistory
from headrace.testing.faults import (
    HostDied,
    HostStorage,
    HostWatcher,
    LogWeather,
    SimulatedHost,
    Spring,
    Weather,
    inhabited,
)
from headrace.testing.virtual_time import EPOCH, MAX_STEPS, VirtualClock, VirtualLoop

T = TypeVar("T")

MANY = 1_000_000
OPERATOR_KEY = "hro_of-a-world"
"""Always the same: a key that is drawn would be another draw of the world's chance."""


class HostedNode:
    """One host and what runs on it."""

    def __init__(
        self,
        host: SimulatedHost,
        host_storage: HostStorage,
        supervisor: PartitionSupervisor,
        runtime: InlineRuntime,
        services: Dependencies,
    ) -> None:
        self.host = host
        self.host_storage = host_storage
        self.supervisor = supervisor
        self.runtime = runtime
        self.services = services


class Hosts:
    """Owns the loop, the store, the log and the hosts. Driven from outside the loop.

    Attributes:
        node: The host that is up; the one that owns the partitions.
        interceptors: See every run of the hosts that start from now on.
        failures: Partition workers that stopped by a fault of their own, which must never happen.
        deaths: Why each dead host died, in order.
        posted: What was sent to HTTP targets, in order.
        answers: What the next of them answer; 200 where nothing is said.
        watcher: Sees every run and every change.
        secrets: What the apps' secrets are, by name.
    """

    def __init__(
        self,
        apps: Sequence[App],
        *,
        seed: int,
        weather: Weather | None = None,
        watcher: HostWatcher | None = None,
        shuffle: bool = False,
        epoch: int = EPOCH,
        max_steps: int = MAX_STEPS,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.apps = {app.name: app for app in apps}
        # As a node gets them from the process that imports the app: what cannot be sent fails here too.
        self.specs = [_sent(app.spec()) for app in apps]
        self.seed = seed
        self.loop = VirtualLoop(shuffle=Random(seed) if shuffle else None, max_steps=max_steps)
        self.loop.set_task_factory(_adopting)
        self.loop.set_exception_handler(_quietly)
        self.clock = VirtualClock(self.loop, epoch=epoch)
        self.storage = MemoryStorage(self.clock)
        self.weather = weather if weather is not None else Weather(SeededEntropy(seed))
        self.watcher = HostWatcher() if watcher is None else watcher
        self.interceptors: Sequence[Interceptor] = ()
        self.failures: list[tuple[str, BaseException]] = []
        self.deaths: list[str] = []
        self.posted: list[HttpRequest] = []
        self.answers: list[int] = []
        self.partitions: dict[str, int] = {}
        self.is_calm = False
        # Each by its own name, out of an environment that has nothing else.
        self._secrets = Secrets({name: f"env:{name}" for name in secrets or {}}, secrets or {})
        self._remote = RemoteStreams()
        self._entropy = SeededEntropy(seed)
        self._numbers = itertools.count(1)
        self._strikes: dict[str, int] = {}
        self._up: asyncio.Event = asyncio.Event()
        self._hosts: list[SimulatedHost] = []
        self._springs: list[Spring] = []
        self._primary: SimulatedHost | None = None
        self.node: HostedNode
        self.broker: MemoryLog

    # --- life and death ---------------------------------------------------------------------

    def open(self) -> None:
        """Bring the first host up.

        Raises:
            Misuse: An app asks for something that cannot be.
        """
        self.loop.drive(self._boot())
        self.loop.drive(self._up.wait())

    def close(self) -> None:
        """End everything."""
        failpoints.disarm()
        current = self.node if self._up.is_set() else None
        for host in self._hosts:
            host.alive = False
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                self.loop.drive(_gone(tasks))
            if current is not None:
                self.loop.drive(self._end_instances(current))
        finally:
            self.loop.close()

    async def _end_instances(self, node: HostedNode) -> None:
        """End instances as a node does that stops: hooks are called, and resources closed."""
        try:
            await node.runtime.close()
        finally:
            for app in self.apps.values():
                await app.close_resources()

    async def _boot(self) -> None:
        """Start a host: it opens the log and takes the partitions over.

        One that finds the store away ends at once, as the command does; the next one tries again.
        """
        self.broker = self._open_log()
        await self._declare_foreign()
        if (node := await self._start_host()) is None:
            return
        self.node = node
        # Its first tasks may have killed it while it began; then the next one is on its way.
        if node.host.alive:
            self._up.set()

    def _open_log(self) -> MemoryLog:
        if self.weather.remote is None:
            return MemoryBroker(self.storage, clock=self.clock)
        faults = LogWeather(self.weather.remote, self.clock)
        return RemoteMemoryLog(self._remote, clock=self.clock, faults=faults)

    async def _start_host(self) -> HostedNode | None:
        try:
            return await self._begin()
        except HostDied:
            return None
        except (Unavailable, Conflict, Fenced) as error:
            assert self._primary is not None  # noqa: S101 - it started before it failed
            self._primary.end(f"it could not begin: {error}")
            return None

    async def _declare_foreign(self) -> None:
        """Streams that no app here owns exist all the same, as another team's would."""
        owned = {stream.name for spec in self.specs for stream in spec.streams}
        for app in self.apps.values():
            for name, stream in app.externals.items():
                if name not in owned:
                    count = max(stream.spec.partitions, 1)
                    await self.broker.declare(
                        StreamSpec(name=name, partitions=count, codec=stream.spec.codec)
                    )

    async def _begin(self) -> HostedNode:
        host = SimulatedHost(next(self._numbers), self._buried)
        self._hosts.append(host)
        self._primary = host
        inhabited.set(host)
        store = self.storage if self.weather.remote is None else self.storage.connect()
        host_storage = HostStorage(
            store,
            host,
            weather=self.weather,
            clock=self.clock,
            watcher=self.watcher,
        )
        if isinstance(self.broker, RemoteMemoryLog):
            outbox = await LogOutbox.open(host_storage, self.broker, clock=self.clock)
            store.attach(outbox)
            backoff = Backoff(self.clock, self._entropy)
            Tasks(self._failed).supervise(outbox.run, name="outbox", backoff=backoff)
        parts = connect_parts(
            lambda calls: InlineRuntime(
                self.apps,
                calls,
                clock=self.clock,
                partitions=self.partitions,
                on_invoke=lambda invocation: self._before(host, invocation),
                on_outcome=lambda invocation, outcome: self._after(host, invocation, outcome),
            ),
            engine=Engine(
                Committer(host_storage),
                self.broker,
                self.clock,
                self._entropy,
                Tasks(self._failed),
                RunHistory(),
            ),
            delivered=self._spring(),
            secrets=self._secrets,
            post=self._answer,
            outgoing=HttpPool(),
            operator=Operator(OPERATOR_KEY),
            access="open",
            check_answers=True,
            health=lambda: Health(ready=True),
            instances=tuple,
            cold_starts=ColdStarts,
            on_failure=self._failed,
            outside=False,
            interceptors=self.interceptors,
        )
        supervisor, bus = parts.supervisor, parts.bus
        self.broker.hold(lambda: lowest_owed(self.storage, supervisor.functions))
        for spec in self.specs:
            for stream in spec.streams:
                await self.broker.declare(stream)
        self.partitions.update({spec.name: spec.partitions for spec in self.broker.streams()})
        for spec in self.specs:
            await bus.prepare(spec)
            await supervisor.deploy(spec)
        await bus.refresh()
        await parts.replays.resume()
        return HostedNode(host, host_storage, supervisor, parts.runtime, parts.services)

    async def _answer(self, request: HttpRequest) -> int:
        """Record the request, and answer it as the test says; nothing leaves the process."""
        self.posted.append(request)
        return self.answers.pop(0) if self.answers else 200

    def _spring(self) -> Broker:
        if not self.weather.stale_reads:
            return self.broker
        self._springs.append(Spring(self.broker, self._entropy, self.weather.stale_reads))
        return cast("Broker", self._springs[-1])

    async def take_over(self) -> SimulatedHost:
        """A second host claims every partition, as if the first had been given up for dead."""
        first = self.node.host
        outside = inhabited.get()
        try:
            if (node := await self._start_host()) is not None:
                self.node = node
        finally:
            # The caller does not run in that host.
            inhabited.set(outside)
        return first

    def _buried(self, host: SimulatedHost, why: str) -> None:
        self.deaths.append(why)
        token = inhabited.set(None)
        if host is self._primary:
            self._up.clear()
            self.loop.create_task(self._revive(), name="revive")
        else:
            self.loop.create_task(_gone(list(host.tasks)), name="sweep")
        inhabited.reset(token)

    async def _revive(self) -> None:
        """Cancel the tasks of dead hosts; then start the next host."""
        for host in self._hosts:
            host.alive = False
            await _gone(list(host.tasks))
        self._hosts.clear()
        await self._boot()

    def crash(self, why: str = "killed by the test") -> None:
        """The host dies now, between two steps; a new one comes up at once."""
        self.node.host.end(why)

    async def stop(self, node: HostedNode, grace: float) -> bool:
        """The host lets go of everything, as at SIGTERM, and ends; False where it dies before.

        Callers outside wait for the next one. Changes that are not committed within `grace` seconds are
        abandoned.
        """
        self._up.clear()
        closing = self.loop.create_task(_closed(node, grace), name="stop")
        node.host.adopt(closing)
        await asyncio.wait((closing,))
        if not node.host.alive:
            return False
        closing.result()
        node.host.end("stopped")
        return True

    def crash_at(self, label: str, passes: int = 1) -> None:
        """The host dies at the given pass (from 1) of a failpoint."""
        self._strikes[label] = passes
        failpoints.arm(label, lambda: self._strike(label))

    def calm_down(self) -> None:
        """No more faults are drawn, and none that is armed strikes."""
        self.is_calm = True
        self.weather.odds = {}
        self.weather.stale_reads = 0.0
        if self.weather.remote is not None:
            self.weather.remote.odds = {}
        for spring in self._springs:
            spring.odds = 0.0
        self._strikes.clear()
        failpoints.disarm()

    def _strike(self, label: str) -> None:
        left = self._strikes.get(label, 0)
        if not left:
            return
        host = inhabited.get() or self.node.host
        if not host.alive:
            raise HostDied(f"host {host.number} is dead")
        self._strikes[label] = left - 1
        if left == 1:
            host.die(f"at {label}", landed=label == "commit:after-fsync")

    def _failed(self, name: str, error: BaseException) -> None:
        # A source without storage reports an error and is restarted, as intended.
        # So does an outbox.
        is_away = name.startswith(("feed ", "outbox")) and isinstance(error, Unavailable)
        # So does a partition worker whose partition another host has claimed.
        if not isinstance(error, HostDied | Fenced) and not is_away:
            self.failures.append((name, error))

    # --- runs -------------------------------------------------------------------------------

    async def _before(self, host: SimulatedHost, invocation: Invocation) -> Outcome | None:
        # An instance is another process: what is published now has not run when `publish` is over.
        await self.clock.sleep(0)
        await host.moving()
        instead = await self.watcher.before(host, invocation)
        await host.moving()
        return instead

    async def _after(
        self, host: SimulatedHost, invocation: Invocation, outcome: Outcome
    ) -> Outcome | None:
        instead = await self.watcher.after(host, invocation, outcome)
        await host.moving()
        return instead

    # --- producers --------------------------------------------------------------------------

    async def publish(self, stream: str, events: Sequence[Event]) -> PublishReceipt:
        """Put events on a stream, as a producer outside does; waits while no host is up.

        Raises:
            Unavailable: The host died under it: whether the events landed is unknown.
        """
        node = await self.current()
        try:
            return await node.services.publisher.publish(stream, events)
        except HostDied as died:
            raise Unavailable(
                f"{died} while publishing; whether the events are there is unknown, so publish "
                "them again with ids"
            ) from died

    # --- what is there ----------------------------------------------------------------------

    def log_of(self, stream: str) -> list[tuple[int, int, bytes]]:
        """Partition, first offset and blob of every chunk the stream holds."""
        return [(partition, first, body) for partition, first, body, _ in self.held_by(stream)]

    def appended_to(self, stream: str) -> list[int]:
        """Return the time of appending of each of these chunks, in microseconds since the epoch."""
        return [appended for *_, appended in self.held_by(stream)]

    def held_by(self, stream: str) -> list[tuple[int, int, bytes, int]]:
        """Partition, first offset, blob and time of every chunk; where offsets have gaps, one by one."""
        found: list[tuple[int, int, bytes, int]] = []
        for chunk in self._chunks_of(stream):
            if chunk.offsets is None:
                found.append((chunk.partition, chunk.start, chunk.body, chunk.appended))
                continue
            for place, event in enumerate(chunk.events(), start=chunk.low):
                body = encode_events([event])
                found.append((chunk.partition, chunk.offset_of(place), body, chunk.appended))
        return found

    def _chunks_of(self, stream: str) -> list[Chunk]:
        found: list[Chunk] = []
        for partition in range(self.broker.stream(stream).partitions):
            found += at_once(self.broker.fetch(stream, partition, 0, events=MANY, size=1 << 40))
        return found

    def rows_of(self, space: Space) -> list[tuple[bytes, bytes]]:
        """Every row of the space."""
        return at_once(self.storage.scan(space, b"", limit=MANY))

    def waiting(self) -> list[tuple[int, Append]]:
        """Return the delayed messages of queues, the soonest first: due time and message."""
        return at_once(_dates(self.node.supervisor.delays))

    async def current(self) -> HostedNode:
        """The node, once one is up."""
        await self._up.wait()
        while not self.node.host.alive:
            # It has died since it came up, in the turns until this task was reached.
            await self._up.wait()
        return self.node


async def _closed(node: HostedNode, grace: float) -> None:
    inhabited.set(node.host)
    await node.supervisor.close(grace)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a look at the store, which never waits; nothing else moves meanwhile."""
    try:
        work.send(None)
    except StopIteration as finished:
        found: T = finished.value
        return found
    work.close()
    raise RuntimeError("the store in memory did not answer at once")


async def _dates(delays: DelayedMessages) -> list[tuple[int, Append]]:
    return [(due, append) async for _, due, append in delays.waiting()]


def _adopting(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
    """A task belongs to the host whose task started it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    host = inhabited.get()
    if host is not None:
        host.adopt(task)
    return task


def _quietly(loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
    """The last breath of a dead host's tasks is not news."""
    if not isinstance(report.get("exception"), (HostDied, asyncio.CancelledError)):
        loop.default_exception_handler(report)


async def _gone(tasks: Sequence[asyncio.Task[Any]] | set[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait for their end."""
    members = [task for task in tasks if task is not asyncio.current_task()]
    for task in members:
        task.cancel()
    if members:
        await asyncio.gather(*members, return_exceptions=True)


_decode_spec = msgspec.msgpack.Decoder(AppSpec).decode


def _sent(spec: AppSpec) -> AppSpec:
    return _decode_spec(msgspec.msgpack.encode(spec))
