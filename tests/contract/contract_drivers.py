"""The drivers that obey the contracts, and how each is opened, closed and opened again.

A new driver joins by one entry in `STORAGES` or `BROKERS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from headrace.environment.tasks import Tasks
from headrace.storage.kv.base import Storage
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.base import Broker
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.storage.log.memory import MemoryBroker

T = TypeVar("T")
AnyStorage = MemoryStorage | SqliteStorage
AnyBroker = MemoryBroker | EmbeddedBroker


class ManualClock:
    """A clock that stands still until a test moves it; sleepers sleep for ever."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def advance(self, seconds: float) -> None:
        self.micros += int(seconds * 1_000_000)

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        return await awaitable


@dataclass
class Place:
    """Where a driver keeps its things in one test."""

    folder: Path
    clock: ManualClock
    memory: MemoryStorage | None = None
    failures: list[BaseException] = field(default_factory=list)


async def _open_memory(place: Place) -> MemoryStorage:
    if place.memory is None:
        place.memory = MemoryStorage(place.clock)
    else:
        place.memory.reopen()
    return place.memory


async def _open_sqlite(place: Place) -> SqliteStorage:
    return await SqliteStorage.open(place.folder, clock=place.clock, reserve=4096)


STORAGES: dict[str, Callable[[Place], Awaitable[AnyStorage]]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
}


class OpenBroker:
    """A broker with the storage under it, which can be closed and opened again."""

    def __init__(self, driver: str, place: Place) -> None:
        self.driver = driver
        self.place = place
        self.storage: AnyStorage
        self.broker: AnyBroker

    @property
    def clock(self) -> ManualClock:
        return self.place.clock

    async def open(self) -> AnyBroker:
        self.tasks = Tasks(lambda _name, error: self.place.failures.append(error))
        if self.driver == "embedded":
            sqlite = await _open_sqlite(self.place)
            self.storage = sqlite
            self.broker = EmbeddedBroker(sqlite, clock=self.clock, tasks=self.tasks)
        else:
            memory = await _open_memory(self.place)
            self.storage = memory
            self.broker = MemoryBroker(memory, clock=self.clock, tasks=self.tasks)
        # That these assignments type-check is itself part of the contract.
        self.ports: tuple[Storage, Broker] = (self.storage, self.broker)
        return self.broker

    async def close(self) -> None:
        await self.broker.close()
        await self.storage.close()
        await self.tasks.close()
        assert self.place.failures == []

    async def reopen(self) -> AnyBroker:
        await self.close()
        return await self.open()


BROKERS = ("memory", "embedded")
