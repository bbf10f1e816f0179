"""Puts a backlog into a data folder: whole blobs through the real log, many appends in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.workloads.node import orders
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.function import StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.base import Storage
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

BLOB = 1_000
IN_FLIGHT = 8


class FillingWentWrong(Exception):
    """Housekeeping failed."""


async def append_all(storage: Storage, stream: str, partitions: int, events: int) -> None:
    """Append `events` events in blobs of 1,000, in turn to every partition."""
    body = encode_events(orders(BLOB))
    numbers = iter(range(events // BLOB))

    async def producer() -> None:
        for number in numbers:
            append = Append(stream, number % partitions, BLOB, body)
            await storage.apply(Change(appends=(append,)))

    async with asyncio.TaskGroup() as producers:
        for _ in range(IN_FLIGHT):
            producers.create_task(producer())


async def fill(data: Path, spec: StreamSpec, events: int) -> None:
    """Create the folder with one stream and its backlog, and close it."""
    failures: list[str] = []
    tasks = Tasks(lambda name, error: failures.append(f"{name}: {error!r}"))
    clock = SystemClock()
    storage = await SqliteStorage.open(data, clock=clock)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(spec)
    await append_all(storage, spec.name, spec.partitions, events)
    await broker.close()
    await tasks.close()
    await storage.close()
    if failures:
        raise FillingWentWrong("; ".join(failures))
