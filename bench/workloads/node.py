"""A whole node without its door, whose commits are seen as they land.

The storage that delivery is given is the real one behind a thin watcher, so that a workload knows
the moment a position is durable without asking again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from bench.figures import scratch
from bench.workloads.runtime import APPS
from headrace.delivery.positions import decode_position, position_key
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Space
from headrace.model.event import Event
from headrace.node.assembly import Node
from headrace.node.config import Settings
from headrace.node.lifecycle import keep_for_good, settle
from headrace.storage.kv.base import Applied
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

VALUE = (
    b'{"id": "0123456789abcdef0123456789abcdef", "customer": "c-1029384", "amount": 129.95, '
    b'"items": [1, 2, 3], "note": "lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do '
    b'eiusmod tempo"}'
)
"""200 bytes of JSON that fit `Order` of `bench/apps/road.py`."""


class WatchedStorage:
    """The storage, telling whoever watches a position when it has moved on the disk."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage
        self._watchers: dict[bytes, Callable[[int], None]] = {}
        self.landed: Callable[[Change], None] | None = None
        """Told of every change once it is durable, where somebody asks."""

    def watch(
        self, function: str, stream: str, partition: int, moved: Callable[[int], None]
    ) -> None:
        """Call `moved` with the watermark after every commit of this position."""
        self._watchers[position_key(function, stream, partition)] = moved

    async def apply(self, change: Change) -> Applied:
        applied = await self._storage.apply(change)
        if self.landed is not None:
            self.landed(change)
        if self._watchers:
            for put in change.puts:
                if put.space is Space.POSITIONS and (moved := self._watchers.get(put.key)):
                    moved(decode_position(put.value).progress.watermark)
        return applied

    async def get(self, space: Space, key: bytes) -> bytes | None:
        return await self._storage.get(space, key)

    async def get_many(
        self, space: Space, keys: Sequence[bytes], *, most: int | None = None
    ) -> list[bytes | None]:
        return await self._storage.get_many(space, keys, most=most)

    async def scan(
        self,
        space: Space,
        low: bytes,
        high: bytes | None = None,
        *,
        limit: int = 1_000,
        most: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        return await self._storage.scan(space, low, high, limit=limit, most=most)

    async def settled(self) -> None:
        await self._storage.settled()

    async def close(self) -> None:
        await self._storage.close()


class Bench:
    """A running node and its watched storage."""

    def __init__(self, node: Node, storage: WatchedStorage, failures: list[str]) -> None:
        self.node = node
        self.storage = storage
        self._failures = failures

    def check(self) -> None:
        """Refuse figures of a node in which something went wrong.

        Raises:
            NodeWentWrong: A task failed, a worker halted, or an invocation did not succeed.
        """
        wrong = list(self._failures)
        wrong += [f"{key}: {why}" for key, why in self.node.supervisor.halted.items()]
        for name, counters in self.node.runs.counters.items():
            bad = {kind: n for kind, n in counters.outcomes.items() if kind != "succeeded" and n}
            if bad:
                cause = next((run.cause for run in self.node.runs.recent(name) if run.cause), "")
                wrong.append(f"{name}: {bad} {cause}")
        if wrong:
            raise NodeWentWrong("; ".join(wrong)[:500])


class NodeWentWrong(Exception):
    """The figures would be those of failures."""


@contextlib.asynccontextmanager
async def bench_of(app: str | Path) -> AsyncIterator[Bench]:
    """A node that runs one of the bench apps, or the app in a file, on a fresh data folder."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch("node"))
        failures: list[str] = []
        tasks = Tasks(lambda name, error: failures.append(f"{name}: {error!r}"))
        clock = SystemClock()
        real = await SqliteStorage.open(folder, clock=clock)
        broker = EmbeddedBroker(real, clock=clock, tasks=tasks)
        storage = WatchedStorage(real)
        node = Node(
            Settings(
                targets=(str(app if isinstance(app, Path) else APPS / f"{app}.py"),), data=folder
            ),
            storage=storage,
            broker=broker,
            clock=clock,
            entropy=SystemEntropy(),
            tasks=tasks,
        )
        bench = Bench(node, storage, failures)
        try:
            await node.start()
            # As a node does that serves.
            keep_for_good()
            tasks.start(settle(node), name="settle")
            yield bench
            bench.check()
        finally:
            await node.close()


class Committed:
    """How many events of one function are finished, over its partitions; awaited by producers."""

    def __init__(self) -> None:
        self.count = 0
        self._finished: dict[int, int] = {}
        self._changed = asyncio.Event()

    @classmethod
    async def watching(
        cls, bench: Bench, function: str, stream: str, partitions: Iterable[int]
    ) -> Committed:
        """Count from now on; whatever the stream holds already must be finished."""
        committed = cls()
        for partition in partitions:
            extent = await bench.node.broker.extent(stream, partition)
            committed._finished[partition] = extent.high
            bench.storage.watch(function, stream, partition, committed._mover(partition))
        return committed

    def _mover(self, partition: int) -> Callable[[int], None]:
        def moved(watermark: int) -> None:
            seen = self._finished[partition]
            if watermark > seen:
                self._finished[partition] = watermark
                self.count += watermark - seen
                self._changed.set()

        return moved

    async def reaches(self, count: int) -> None:
        """Return once `count` events are finished."""
        while self.count < count:
            self._changed.clear()
            await self._changed.wait()


def orders(count: int, *, key: str | None = None) -> list[Event]:
    """Events as a producer would send them."""
    return [Event(VALUE, key)] * count
