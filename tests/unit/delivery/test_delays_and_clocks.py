"""A delayed message comes when the wall clock says so, also when that is set while it waits."""

from __future__ import annotations

from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.delivery.queues.delayed import DelayedMessages
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.event import Event
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.virtual_time import VirtualLoop

DELAY_S = 3_600.0


class SetByHand(SystemClock):
    """A machine's clock: it does not tell anybody that it was set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wrong = 0.0

    def now(self) -> int:
        return round((1_000_000_000 + self._loop.time() + self.wrong) * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()


def test_a_clock_set_forward_is_noticed_within_a_second() -> None:
    loop = VirtualLoop()
    clock = SetByHand(loop)
    failures: list[BaseException] = []

    async def wait() -> tuple[int, int, int]:
        tasks = Tasks(lambda _name, error: failures.append(error))
        storage = MemoryStorage(clock)
        broker = MemoryBroker(storage, clock=clock, tasks=tasks)
        committer = Committer(storage)
        delays = DelayedMessages(
            committer=committer,
            broker=broker,
            clock=clock,
            appends=DelayedAppends(clock, SystemEntropy()),
            on_failure=lambda _name, error: failures.append(error),
        )
        spec = StreamSpec(name="jobs", partitions=1, queue=QueueSpec(delay=DELAY_S))
        await broker.declare(spec)
        tasks.start(delays.run(), name="delays")
        append = Append("jobs", 0, 1, encode_events([Event(b"1")]))
        parts = tuple(part for part, _ in delays.appends.split(spec, append))
        await committer.commit(Change(appends=parts))
        await clock.sleep(10)
        before = (await broker.extent("jobs", 0)).high
        clock.wrong = DELAY_S
        await clock.sleep(1.5)
        found = (await broker.extent("jobs", 0)).high
        clock.wrong = -86_400.0
        parts = tuple(part for part, _ in delays.appends.split(spec, append))
        await committer.commit(Change(appends=parts))
        await clock.sleep(10)
        clock.wrong = DELAY_S - 86_400.0
        await clock.sleep(1.5)
        again = (await broker.extent("jobs", 0)).high
        await tasks.close()
        return before, found, again

    assert loop.drive(wait()) == (0, 1, 2)
    assert failures == []
