"""What every foreign source promises; over the twin here, over real servers in `tests/integration`.

A test file takes the suite by subclassing `ForeignContract` and giving a `system` fixture.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from tests.services.systems import System

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.sources.base import SourceAppender
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker

OWN = "_app.read.foreign.0"
PATIENCE_S = 40.0
QUIET_S = 0.4
MANY = 1_000_000


class Killed(BaseException):
    """The node dies here; nothing may catch it."""


@pytest.fixture
def failing() -> Iterator[Callable[[str, int], None]]:
    """Arm a failpoint: at that pass of the label the node dies."""

    def arm(label: str, every: int) -> None:
        passes = 0

        def action() -> None:
            nonlocal passes
            passes += 1
            if passes % every == 0:
                raise Killed(label)

        failpoints.arm(label, action)

    yield arm
    failpoints.disarm()


@dataclass
class Node:
    """A log that outlives the feeds which fill it. Its own dedupe is off: the marks must do."""

    storage: MemoryStorage
    broker: MemoryBroker
    deaths: int = 0

    async def events(self) -> list[Event]:
        chunks = await self.broker.fetch(OWN, 0, 0, events=MANY, size=1 << 30)
        return [event for chunk in chunks for event in chunk.events()]

    async def count(self) -> int:
        return (await self.broker.extent(OWN, 0)).high

    async def feed(self, system: System, trigger: ForeignTrigger) -> None:
        """As the supervisor does: begin anew after a failure; here also after a death."""
        while True:
            source = system.source(trigger)
            try:
                await source.run(
                    SourceAppender(self.storage, self.broker, self.storage.apply, stream=OWN)
                )
            except Killed:
                self.deaths += 1
            except Unavailable:
                await asyncio.sleep(0.1)

    async def take(self, system: System, trigger: ForeignTrigger, count: int) -> list[Event]:
        """Feed until `count` events are there, and a little longer, for those too many."""
        task = asyncio.get_running_loop().create_task(self.feed(system, trigger))
        try:
            await reached(self, count)
            await asyncio.sleep(QUIET_S)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return await self.events()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    clock = SystemClock()
    storage = MemoryStorage(clock)
    failures: list[BaseException] = []
    tasks = Tasks(lambda _name, error: failures.append(error))
    broker = MemoryBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name=OWN, owner="app", dedupe_window=0))
    yield Node(storage, broker)
    await broker.close()
    await storage.close()
    await tasks.close()
    assert failures == []


def numbered(count: int, begin: int = 0) -> list[bytes]:
    return [b"%06d" % number for number in range(begin, begin + count)]


def values(events: Sequence[Event]) -> list[bytes]:
    return [event.value for event in events]


async def reached(node: Node, count: int) -> None:
    """Wait until the log holds `count` events."""
    async with asyncio.timeout(PATIENCE_S):
        while await node.count() < count:  # noqa: ASYNC110 - the log is watched from outside
            await asyncio.sleep(0.02)


async def nothing_left(system: System, queue: str) -> None:
    """Wait until the system has heard that everything was taken."""
    left: int | None = None
    for _ in range(100):
        left = await system.left(queue)
        if not left:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{left} messages were never acknowledged")


async def trickle(system: System, queue: str, begin: int) -> None:
    for number in range(begin, begin + 12, 3):
        await system.send(queue, numbered(3, begin=number))
        await asyncio.sleep(0.15)


class ForeignContract:
    """Nothing lost, nothing doubled, bytes kept as they are."""

    async def test_what_was_sent_arrives_once_and_in_order(
        self, system: System, node: Node
    ) -> None:
        queue = await system.make()
        trigger = system.trigger(queue)
        await node.take(system, trigger, 0)
        await system.send(queue, numbered(300))
        found = values(await node.take(system, trigger, 300))
        assert (found if system.ordered else sorted(found)) == numbered(300)
        await nothing_left(system, queue)

    async def test_poison_payloads_stay_the_bytes_they_were(
        self, system: System, node: Node
    ) -> None:
        queue = await system.make()
        trigger = system.trigger(queue)
        await node.take(system, trigger, 0)
        await system.send(queue, [*system.poison, b"after"])
        events = await node.take(system, trigger, len(system.poison) + 1)
        sent = [*system.poison, b"after"]
        assert sorted(values(events)) == sorted(sent)
        assert values(events) == sent or not system.ordered
        assert all(event.source for event in events)

    @pytest.mark.parametrize(
        "label", ["feed:before-append", "feed:after-append", "feed:after-acknowledge"]
    )
    async def test_a_node_that_dies_between_two_steps_loses_and_doubles_nothing(
        self, system: System, node: Node, failing: Callable[[str, int], None], label: str
    ) -> None:
        queue = await system.make()
        trigger = system.trigger(queue)
        await node.take(system, trigger, 0)
        await system.send(queue, numbered(120))
        failing(label, 2)
        await system.send(queue, numbered(5, begin=120))
        sent = asyncio.get_running_loop().create_task(trickle(system, queue, begin=125))
        events = await node.take(system, trigger, 137)
        await sent
        assert node.deaths > 0
        assert sorted(values(events)) == numbered(137)

    async def test_a_server_that_is_killed_and_comes_back_is_read_on(
        self, system: System, node: Node
    ) -> None:
        if not system.restarts:
            pytest.skip("this server keeps its data in memory")
        queue = await system.make()
        trigger = system.trigger(queue)
        await node.take(system, trigger, 0)
        await system.send(queue, numbered(40))
        assert values(await node.take(system, trigger, 40)) == numbered(40)
        task = asyncio.get_running_loop().create_task(node.feed(system, trigger))
        try:
            await asyncio.sleep(0.2)
            await system.send(queue, numbered(20, begin=40))
            await asyncio.to_thread(system.server.kill)
            await asyncio.to_thread(system.server.start)
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        await system.send(queue, [b"000060"])
                        break
                    except Exception:  # noqa: BLE001 - every client has its own word for "not yet"
                        await asyncio.sleep(0.2)
            await reached(node, 61)
            # What it forgot of our acknowledgements it delivers again, to be told once more.
            await nothing_left(system, queue)
            await asyncio.sleep(QUIET_S)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert sorted(values(await node.events())) == numbered(61)
