"""A worker whose runs are sent ahead: how many at once, in what order, and what is taken back."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from tests.unit.delivery.making import engine_over

from headrace.delivery.commit.committer import Committer
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.positions import claim
from headrace.delivery.publisher import Publisher
from headrace.environment.tasks import Tasks
from headrace.model.event import Event
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Returned
from headrace.runtime.base import RECALLED, Run, Waiter
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

EVENTS, KEYS, WIDTH, RUN_S = 400, 37, 4, 0.01


class Timed:
    """Runs take 10 ms each, one after the other where they follow each other."""

    def __init__(self, clock: VirtualClock, tasks: Tasks, *, take_back: int = 0) -> None:
        self.clock = clock
        self.tasks = tasks
        self.take_back = take_back
        self.seen: defaultdict[str, list[int]] = defaultdict(list)
        self.running = self.most = self.most_in_hand = self.in_hand = self.ahead = 0
        self.closed: set[str] = set()
        self.calls = 0

    def submit(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Sent:
        assert after is None or isinstance(after, Sent)
        if after is not None:
            assert after.takes_another
            after.followed = True
            self.ahead += 1
        return Sent(self, invocation, done, None if after is None else after.task)

    async def work(self, invocation: Invocation) -> None:
        assert isinstance(invocation, BatchInvocation)
        (event,) = invocation.chunks[0].events()
        key = event.key or ""
        # Nothing of a key begins before what came before it has ended.
        assert key not in self.closed
        self.closed.add(key)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.clock.sleep(RUN_S)
        self.seen[key].append(invocation.chunks[0].start)
        self.running -= 1
        self.closed.discard(key)


class Sent:
    """A run, and the one behind it."""

    def __init__(
        self,
        host: Timed,
        invocation: Invocation,
        done: Waiter,
        before: asyncio.Task[None] | None = None,
    ) -> None:
        self.host = host
        self.followed = False
        host.calls += 1
        host.in_hand += 1
        host.most_in_hand = max(host.most_in_hand, host.in_hand)
        recalled = before is not None and host.take_back and host.calls % host.take_back == 0
        self.task = host.tasks.start(
            self._run(invocation, done, before, recalled=bool(recalled)), name="run"
        )

    @property
    def takes_another(self) -> bool:
        return not self.followed and not self.task.done()

    def cancel(self) -> bool:
        return False

    async def _run(
        self,
        invocation: Invocation,
        done: Waiter,
        before: asyncio.Task[None] | None,
        *,
        recalled: bool,
    ) -> None:
        try:
            if before is not None and not recalled:
                await asyncio.wait((before,))
            if not recalled:
                await self.host.work(invocation)
        finally:
            self.host.in_hand -= 1
        done.set_result(RECALLED if recalled else Returned())


async def delivered(
    loop: VirtualLoop, *, take_back: int = 0, events: int = EVENTS
) -> tuple[Timed, float]:
    """All events through a worker of four at once; the host, and how long it took."""
    clock = VirtualClock(loop)
    storage = MemoryStorage(clock)
    failures: list[str] = []
    tasks = Tasks(lambda name, error: failures.append(f"{name}: {error!r}"))
    broker = MemoryBroker(storage, clock=clock)
    await broker.declare(StreamSpec(name="s", owner="shop"))
    await Publisher(broker, Committer(storage)).publish(
        "s", [Event(b"1", str(n % KEYS)) for n in range(events)]
    )
    spec = FunctionSpec(name="shop.price", app="shop", order="key", batch_size=1, parallelism=WIDTH)
    subscription = broker.subscribe(spec.name, ("s",))
    claimed = await claim(
        storage, broker, function=spec.name, stream="s", partition=0, start="earliest"
    )
    host = Timed(clock, tasks, take_back=take_back)
    worker = PartitionWorker(
        ClaimedPartition(spec, 0, {"s": claimed}, [subscription.reader("s", 0, 0)]),
        engine=engine_over(storage, broker, clock, tasks),
        runtime=FunctionRuntime(host.submit),
        breaker=CircuitBreaker(None),
    )
    before = clock.monotonic()
    running = tasks.start(worker.run(), name="worker")
    while sum(map(len, host.seen.values())) < events:
        await clock.sleep(RUN_S / 10)
    took = clock.monotonic() - before
    worker.stop()
    await running
    assert not worker.in_flight
    again = await claim(
        storage, broker, function=spec.name, stream="s", partition=0, start="earliest"
    )
    assert again.position.progress.watermark == events
    await tasks.close()
    await broker.close()
    assert not failures
    return host, took


def drive(*, take_back: int = 0, events: int = EVENTS) -> tuple[Timed, float]:
    loop = VirtualLoop()
    try:
        return loop.drive(delivered(loop, take_back=take_back, events=events))
    finally:
        loop.close()


def test_no_more_run_at_once_than_may_however_many_are_sent_ahead() -> None:
    host, took = drive()
    assert host.most == WIDTH
    assert WIDTH < host.most_in_hand <= 2 * WIDTH
    assert host.ahead > EVENTS * 0.8
    # Every slot was busy from the first event to the last.
    assert took < EVENTS / WIDTH * RUN_S * 1.05


def test_events_of_a_key_are_seen_in_order_and_once_though_their_runs_were_sent_ahead() -> None:
    host, _ = drive()
    assert {key: found == sorted(set(found)) for key, found in host.seen.items()} == {
        str(key): True for key in range(KEYS)
    }
    assert sum(map(len, host.seen.values())) == EVENTS


def test_what_is_taken_back_runs_later_in_order_and_once() -> None:
    host, _ = drive(take_back=3)
    assert host.most <= WIDTH
    assert all(found == sorted(set(found)) for found in host.seen.values())
    assert sum(map(len, host.seen.values())) == EVENTS
    assert host.calls > EVENTS * 1.1


def test_nothing_is_sent_ahead_while_another_worker_is_free() -> None:
    host, _ = drive(events=WIDTH)
    assert host.ahead == 0
    assert host.most == WIDTH


def test_more_is_read_before_what_was_laid_ready_runs_out() -> None:
    host, took = drive(events=1_200)
    assert host.ahead > 1_180
    assert took < 1_200 / WIDTH * RUN_S * 1.02
