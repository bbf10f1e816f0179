"""The contract of foreign sources over a twin: a queue in memory that delivers again what it must."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from tests.contract.foreign_suite import ForeignContract, failing, node
from tests.services.systems import POISON, System

from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import Foreign, ForeignTrigger
from headrace.sources.base import Source
from headrace.sources.foreign.base import ForeignMessage
from headrace.sources.foreign.feed import ForeignFeed

__all__ = ["failing", "node"]


class TwinQueue:
    """Messages with numbers; those handed out and not acknowledged go out again to the next one."""

    def __init__(self) -> None:
        self.waiting: dict[int, bytes] = {}
        self.away: set[int] = set()
        self.down = False
        self.sent = 0


class TwinDriver:
    """A driver of the twin."""

    def __init__(self, queue: TwinQueue) -> None:
        self._queue = queue

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        self._check()
        self._queue.away.clear()
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[int]]:
        self._check()
        there = [number for number in self._queue.waiting if number not in self._queue.away]
        if not there:
            await asyncio.sleep(0.01)
        self._queue.away.update(there[:limit])
        return [
            ForeignMessage(
                Event(self._queue.waiting[number], source="twin"), number, mark=str(number)
            )
            for number in there[:limit]
        ]

    async def acknowledge(self, messages: Sequence[ForeignMessage[int]]) -> None:
        self._check()
        for message in messages:
            del self._queue.waiting[message.receipt]

    async def close(self) -> None:
        self._queue.away.clear()

    def _check(self) -> None:
        if self._queue.down:
            raise Unavailable("the twin is down")


class TwinServer:
    """Takes the queues down and brings them back."""

    def __init__(self, queues: dict[str, TwinQueue]) -> None:
        self._queues = queues

    def kill(self) -> None:
        for queue in self._queues.values():
            queue.down = True

    def start(self) -> None:
        for queue in self._queues.values():
            queue.down = False


class Twin(System):
    """The twin, as the suite sees a system."""

    poison = (*POISON, b"")

    def __init__(self) -> None:
        self._queues: dict[str, TwinQueue] = {}
        self.server = TwinServer(self._queues)  # type: ignore[assignment]  # the two calls needed

    async def make(self) -> str:
        name = f"q{len(self._queues)}"
        self._queues[name] = TwinQueue()
        return name

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        found = self._queues[queue]
        for value in values:
            found.waiting[found.sent] = value
            found.sent += 1

    def trigger(self, queue: str) -> ForeignTrigger:
        return Foreign("twin", {"queue": queue}, in_flight=10)

    def source(self, trigger: ForeignTrigger) -> Source:
        assert isinstance(trigger, Foreign)
        queue = self._queues[trigger.settings["queue"]]
        return ForeignFeed(TwinDriver(queue), in_flight=trigger.in_flight)

    async def left(self, queue: str) -> int | None:
        return len(self._queues[queue].waiting)


@pytest.fixture
def system() -> System:
    return Twin()


class TestTwin(ForeignContract):
    """Every promise, kept by the twin."""
