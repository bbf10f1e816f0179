"""The drivers that obey the contracts, and how each is opened, closed and opened again.

A new driver joins by one entry in `STORAGES` or `BROKERS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Space
from headrace.model.errors import Unavailable
from headrace.model.record import Append
from headrace.storage.kv.base import Applied, Storage
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.base import Broker
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.storage.log.memory import MemoryBroker
from headrace.storage.log.remote_memory import RemoteMemoryLog, RemoteStreams
from headrace.storage.outbox import LogOutbox

T = TypeVar("T")
AnyStorage = MemoryStorage | SqliteStorage
AnyBroker = MemoryBroker | EmbeddedBroker | RemoteMemoryLog


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
    remote: RemoteStreams = field(default_factory=RemoteStreams)
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
    """A broker with the storage under it, which can be closed and opened again.

    Attributes:
        has_outbox: Whether the log keeps its own disk, and is published to by the store's outbox.
    """

    def __init__(self, driver: str, place: Place) -> None:
        self.driver = driver
        self.place = place
        self.has_outbox = driver.startswith("remote")
        self.storage: AnyStorage
        self.broker: AnyBroker

    @property
    def clock(self) -> ManualClock:
        return self.place.clock

    async def open(self) -> AnyBroker:
        self.tasks = Tasks(self._failed)
        match self.driver:
            case "embedded":
                sqlite = await _open_sqlite(self.place)
                self.storage = sqlite
                self.broker = EmbeddedBroker(sqlite, clock=self.clock, tasks=self.tasks)
            case "memory":
                memory = await _open_memory(self.place)
                self.storage = memory
                self.broker = MemoryBroker(memory, clock=self.clock, tasks=self.tasks)
            case _:
                self.storage = await STORAGES[self.driver.removeprefix("remote over ")](self.place)
                self.broker = await self._open_remote()
        # That these assignments type-check is itself part of the contract.
        self.ports: tuple[Storage, Broker] = (self.storage, self.broker)
        return self.broker

    def _failed(self, name: str, error: BaseException) -> None:
        if name != "outbox" or not isinstance(error, Unavailable):
            self.place.failures.append(error)

    async def _open_remote(self) -> RemoteMemoryLog:
        log = RemoteMemoryLog(self.place.remote, clock=self.clock, tasks=self.tasks)
        outbox = await LogOutbox.open(self.storage, log, clock=self.clock)
        self.storage.attach(outbox)
        self.tasks.supervise(outbox.run, name="outbox", backoff=Backoff(self.clock))
        return log

    async def append(self, appends: Sequence[Append]) -> Applied:
        """Commit appends alone, as a producer does; readers then see them."""
        return await self.commit(Change(appends=tuple(appends)))

    async def commit(self, change: Change) -> Applied:
        """Commit the change; readers then see what it appends."""
        applied = await self.storage.apply(change)
        await self.published()
        return applied

    async def published(self) -> None:
        """Return once nothing waits for the log."""
        while await self.storage.scan(Space.OUTBOX, b"", limit=1):
            if (trouble := self.tasks.troubles().get("outbox")) is not None:
                raise Unavailable(trouble.error)
            await asyncio.sleep(0)

    def must_stand(self, applied: Applied, *places: str | None) -> None:
        """The appends were given these positions; what an outbox has taken has none yet."""
        told = [None if each is None else str(each) for each in applied.positions]
        assert told == ([None] * len(places) if self.has_outbox else list(places))

    async def close(self) -> None:
        await self.broker.close()
        await self.storage.close()
        await self.tasks.close()
        assert self.place.failures == []

    async def reopen(self) -> AnyBroker:
        await self.close()
        return await self.open()


BROKERS = ("memory", "embedded", "remote over memory", "remote over sqlite")
