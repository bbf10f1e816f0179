"""The loop's own bounds: how far it runs ahead of a store that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace
from tests.unit.delivery.making import engine_over, submits

from headrace.delivery.commit.committer import Committer
from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter, decode_full, throttle_rows_of
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.coalesced_batches import MOST
from headrace.delivery.partition.commit_pipeline import MAX_GATHERED
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.positions import claim, stored
from headrace.delivery.publisher import Publisher
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Space
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.flow_control import Throttle
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Cause, Failure, Outcome, Returned
from headrace.model.policy import MAX_HOPS, EventOrder, Retry
from headrace.model.record import Append, Chunk, encode_events
from headrace.storage.kv.keys import after
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.base import Reader
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.virtual_time import VirtualClock, VirtualLoop


class Counting:
    """An invoker whose functions do nothing."""

    def __init__(self) -> None:
        self.runs = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.runs += invocation.batches
        return Returned()


class Rig:
    """One worker over one partition, and what it stands on."""

    def __init__(
        self, loop: VirtualLoop, faults: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self.clock = VirtualClock(loop)
        self.storage = MemoryStorage(self.clock, faults=faults)
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.broker = MemoryBroker(self.storage, clock=self.clock)
        self.publisher = Publisher(self.broker, Committer(self.storage))
        self.invoker = Counting()
        self.spec = FunctionSpec(name="shop.price", app="shop", batch_size=1)

    async def declare(self) -> None:
        """Have the stream it reads."""
        await self.broker.declare(StreamSpec(name="s", owner="shop"))

    async def claim(
        self, seen: Callable[[Reader], Reader] = lambda reader: reader
    ) -> PartitionWorker:
        """The worker, not yet running; it reads the log as it is `seen`."""
        subscription = self.broker.subscribe(self.spec.name, ("s",))
        claimed = await claim(
            self.storage,
            self.broker,
            function=self.spec.name,
            stream="s",
            partition=0,
            start="earliest",
        )
        return PartitionWorker(
            ClaimedPartition(self.spec, 0, {"s": claimed}, [seen(subscription.reader("s", 0, 0))]),
            engine=self.engine(),
            runtime=FunctionRuntime(submits(self.tasks, self.run)),
            breaker=CircuitBreaker(None),
        )

    async def run(self, invocation: Invocation) -> Outcome:
        """By what runs functions now, which a test may replace."""
        return await self.invoker.invoke(invocation)

    def engine(self) -> Engine:
        """What its workers stand on."""
        return engine_over(self.storage, self.broker, self.clock, self.tasks)

    async def close(self) -> None:
        """End what is left."""
        await self.tasks.close()
        await self.broker.close()


async def stalled(loop: VirtualLoop) -> tuple[int, int]:
    """Runs while the store stands still, and after it goes on, of 2,000 events."""
    going = asyncio.Event()
    going.set()

    async def faults(moment: str) -> None:
        if moment == "before":
            await going.wait()

    rig = Rig(loop, faults)
    await rig.declare()
    await rig.publisher.publish("s", [Event(b"1")] * 2_000)
    worker = await rig.claim()
    going.clear()
    running = rig.tasks.start(worker.run(), name="worker")
    await rig.clock.sleep(5)
    ahead = rig.invoker.runs
    going.set()
    await rig.clock.sleep(5)
    worker.stop()
    await running
    await rig.close()
    assert not rig.failures
    return ahead, rig.invoker.runs


def test_only_so_many_units_run_ahead_of_a_store_that_stands_still() -> None:
    loop = VirtualLoop()
    try:
        ahead, in_all = loop.drive(stalled(loop))
    finally:
        loop.close()
    assert MAX_GATHERED <= ahead <= MAX_GATHERED + 2 * MOST < in_all
    assert in_all == 2_000


async def refused_once(loop: VirtualLoop) -> tuple[int, int]:
    """Runs, and the watermark, where the only commit of a worker that sleeps is turned down once."""
    refuse = False

    async def faults(moment: str) -> None:
        nonlocal refuse
        if refuse and moment == "before":
            refuse = False
            await rig.clock.sleep(1)
            raise Unavailable("not now")

    rig = Rig(loop, faults)
    await rig.declare()
    await rig.publisher.publish("s", [Event(b"1")])
    worker = await rig.claim()
    refuse = True
    running = rig.tasks.start(worker.run(), name="worker")
    await rig.clock.sleep(60)
    _, standing = await stored(rig.storage, rig.spec.name, "s", 0)
    worker.stop()
    await running
    await rig.close()
    return rig.invoker.runs, standing.progress.watermark


def test_a_commit_that_does_not_land_wakes_a_pump_that_sleeps() -> None:
    loop = VirtualLoop()
    try:
        assert loop.drive(refused_once(loop)) == (2, 1)
    finally:
        loop.close()


async def with_a_runaway(loop: VirtualLoop) -> tuple[int, int]:
    """Events run and events parked, where one of many has come too far."""
    rig = Rig(loop)
    await rig.declare()
    await rig.publisher.publish("s", [Event(b"1")] * 20)
    await rig.publisher.publish("s", [Event(b"1")], hops=MAX_HOPS + 1)
    await rig.publisher.publish("s", [Event(b"1")] * 20)
    worker = await rig.claim()
    running = rig.tasks.start(worker.run(), name="worker")
    await rig.clock.sleep(60)
    parked = await rig.storage.scan(Space.PARKED, b"")
    worker.stop()
    await running
    await rig.close()
    return rig.invoker.runs, len(parked)


def test_an_event_that_runs_away_takes_nobody_of_its_convoy_with_it() -> None:
    loop = VirtualLoop()
    try:
        assert loop.drive(with_a_runaway(loop)) == (40, 1)
    finally:
        loop.close()


class Hesitant:
    """A reader whose log takes a moment, as one elsewhere does."""

    def __init__(self, reader: Reader, clock: VirtualClock) -> None:
        self._reader = reader
        self._clock = clock
        self.watch = reader.watch
        self.seek = reader.seek
        self.close = reader.close

    @property
    def position(self) -> int:
        return self._reader.position

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        await self._clock.sleep(0.01)
        return await self._reader.read(events=events, size=size)


async def throttled(loop: VirtualLoop) -> list[float]:
    """When the runs of four partitions begin that may begin one a second."""
    clock = VirtualClock(loop)
    storage = MemoryStorage(clock)
    tasks = Tasks(lambda name, error: None)
    broker = MemoryBroker(storage, clock=clock)
    await broker.declare(StreamSpec(name="s", owner="shop", partitions=4))
    spec = FunctionSpec(
        name="shop.price", app="shop", batch_size=1, throttle=Throttle(1, per=1.0, burst=1)
    )
    subscription = broker.subscribe(spec.name, ("s",))
    flow, began = FlowLimiter(spec), list[float]()

    class Noting(Counting):
        async def invoke(self, invocation: Invocation) -> Outcome:
            began.append(clock.monotonic())
            return Returned()

    for partition in range(4):
        await storage.apply(
            Change(appends=(Append("s", partition, 1, encode_events([Event(b"1")])),))
        )
        claimed = await claim(
            storage, broker, function=spec.name, stream="s", partition=partition, start="earliest"
        )
        reader = Hesitant(subscription.reader("s", partition, 0), clock)
        worker = PartitionWorker(
            ClaimedPartition(spec, partition, {"s": claimed}, [reader]),
            engine=engine_over(storage, broker, clock, tasks),
            runtime=FunctionRuntime(submits(tasks, Noting().invoke)),
            breaker=CircuitBreaker(None),
            flow=flow,
        )
        tasks.start(worker.run(), name="worker")
    await clock.sleep(60)
    await tasks.close()
    await broker.close()
    return began


def test_what_another_partition_has_begun_meanwhile_counts_for_the_throttle() -> None:
    loop = VirtualLoop()
    try:
        began = loop.drive(throttled(loop))
    finally:
        loop.close()
    assert len(began) == 4
    assert all(after - before > 0.9 for before, after in pairwise(began))


def test_what_a_throttle_has_spent_is_on_the_disk_before_each_run() -> None:
    """Also where two runs of a partition begin at once."""

    async def work(loop: VirtualLoop) -> list[list[int]]:
        async def slow(moment: str) -> None:
            if moment == "before":
                await rig.clock.sleep(0.1)

        rig = Rig(loop, slow)
        await rig.declare()
        await rig.publisher.publish("s", [Event(b"1", f"k{n}") for n in range(4)])
        spent: list[list[int]] = []

        class Looking(Counting):
            async def invoke(self, invocation: Invocation) -> Outcome:
                low = throttle_rows_of(rig.spec.name)
                rows = await rig.storage.scan(Space.META, low, after(low))
                spent.append([(decode_full(row) - begun) // 1_000_000 for _, row in rows])
                await rig.clock.sleep(1)
                return Returned()

        rig.invoker = Looking()
        throttle = Throttle(1, per=10.0, burst=4)
        rig.spec = replace(rig.spec, order="none", parallelism=4, throttle=throttle)
        worker = await rig.claim()
        begun = rig.clock.now()
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(60)
        worker.stop()
        await running
        await rig.close()
        assert not rig.failures
        return spent

    loop = VirtualLoop()
    try:
        spent = loop.drive(work(loop))
    finally:
        loop.close()
    # Ten seconds for each token: as many as have begun are gone from the bucket that the disk has.
    assert len(spent) == 4
    assert all(known >= 10 * (runs + 1) for runs, (known,) in enumerate(spent))


class FailingFirst:
    """An invoker whose first event fails a few times; it notes what it was handed."""

    def __init__(self, times: int) -> None:
        self.values: list[int] = []
        self._left = times

    async def invoke(self, invocation: Invocation) -> Outcome:
        assert isinstance(invocation, BatchInvocation)
        found = [int(each.value) for chunk in invocation.chunks for each in chunk.events()]
        self.values += found
        if found[0] == 0 and self._left:
            self._left -= 1
            return Returned(failures=(Failure(0, Cause("ValueError", "not yet")),))
        return Returned()

    async def close(self) -> None:
        return


@pytest.mark.parametrize("order", ["partition", "key"])
@pytest.mark.parametrize("times", range(1, 7))
def test_later_events_of_a_key_wait_through_every_attempt(order: EventOrder, times: int) -> None:
    async def work(loop: VirtualLoop) -> list[int]:
        rig = Rig(loop)
        await rig.declare()
        await rig.publisher.publish("s", [Event(b"%d" % n, "k") for n in range(4)])
        failing = FailingFirst(times)
        rig.invoker = failing  # type: ignore[assignment]  # it counts values
        retry = Retry(attempts=times + 1, initial_delay=0.5, jitter=False)
        rig.spec = replace(rig.spec, order=order, parallelism=3, retry=retry)
        worker = await rig.claim()
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(3_000)
        worker.stop()
        await running
        await rig.close()
        assert not rig.failures
        return failing.values

    loop = VirtualLoop()
    try:
        assert loop.drive(work(loop)) == [0] * times + [0, 1, 2, 3]
    finally:
        loop.close()


class AwayWhile(Hesitant):
    """A reader whose log is away whenever something runs."""

    def __init__(self, reader: Reader, clock: VirtualClock, invoker: Slow) -> None:
        super().__init__(reader, clock)
        self._invoker = invoker

    async def read(self, *, events: int, size: int) -> list[Chunk]:
        if self._invoker.running:
            raise Unavailable("the log is away")
        return await super().read(events=events, size=size)


class Slow(FailingFirst):
    """As its base; each run takes a second."""

    def __init__(self, times: int, clock: VirtualClock) -> None:
        super().__init__(times)
        self.running = 0
        self._clock = clock

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.running += 1
        try:
            await self._clock.sleep(1)
            return await super().invoke(invocation)
        finally:
            self.running -= 1


@pytest.mark.parametrize("order", ["key", "none"])
@pytest.mark.parametrize("times", [0, 2, 5])
def test_what_runs_while_the_log_is_away_is_kept_and_its_attempts_are_counted(
    order: EventOrder, times: int
) -> None:
    async def work(loop: VirtualLoop) -> list[int]:
        rig = Rig(loop)
        await rig.declare()
        await rig.publisher.publish("s", [Event(b"%d" % n, f"k{n}") for n in range(3)])
        slow = Slow(times, rig.clock)
        rig.invoker = slow  # type: ignore[assignment]  # it counts values
        retry = Retry(attempts=3, initial_delay=0.0, jitter=False)
        rig.spec = replace(rig.spec, order=order, parallelism=2, retry=retry)
        worker = await rig.claim(lambda reader: AwayWhile(reader, rig.clock, slow))
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(60)
        worker.stop()
        await running
        await rig.close()
        assert not rig.failures
        return sorted(slow.values)

    loop = VirtualLoop()
    try:
        assert loop.drive(work(loop)) == [0] * min(times + 1, 3) + [1, 2]
    finally:
        loop.close()


def test_a_pump_whose_partition_has_another_owner_ends_and_runs_nothing() -> None:
    async def work(loop: VirtualLoop) -> tuple[bool, int]:
        rig = Rig(loop)
        await rig.declare()
        await rig.publisher.publish("s", [Event(b"1")] * 3)
        former = await rig.claim()
        await rig.claim()
        await asyncio.wait_for(former.run(), 60)
        await rig.close()
        assert not rig.failures
        return former.fenced, rig.invoker.runs

    loop = VirtualLoop()
    try:
        assert loop.drive(work(loop)) == (True, 0)
    finally:
        loop.close()
