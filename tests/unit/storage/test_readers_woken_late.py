"""After a commit: whose changes they were, and who waits for events, in which order they go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.sqlite.group_commit import MANY
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker


@pytest.mark.parametrize(("partitions", "owner_goes_on"), [(4, "last"), (MANY + 1, "first")])
async def test_a_changes_owner_does_not_wait_until_many_readers_have_been_woken(
    tmp_path: Path, partitions: int, owner_goes_on: str
) -> None:
    clock = SystemClock()
    storage = await SqliteStorage.open(tmp_path, clock=clock)
    tasks = Tasks(lambda name, error: None)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name="s", owner="shop", partitions=partitions))
    subscription = broker.subscribe("group", ("s",))
    order: list[str] = []

    async def listen(number: int) -> None:
        reader = subscription.reader("s", number, 0)
        waiter = asyncio.get_running_loop().create_future()
        reader.watch(waiter)
        await waiter
        assert [chunk.count for chunk in await reader.read(events=9, size=999)] == [1]
        order.append(f"reader {number}")

    listeners = [asyncio.ensure_future(listen(number)) for number in range(partitions)]
    await clock.sleep(0)
    body = encode_events([Event(b"1")])
    appends = tuple(Append("s", number, 1, body) for number in range(partitions))
    await storage.apply(Change(appends=appends))
    order.append("owner")
    await asyncio.gather(*listeners)
    assert sorted(order) == sorted(["owner", *(f"reader {n}" for n in range(partitions))])
    assert order.index("owner") == (0 if owner_goes_on == "first" else partitions)
    await broker.close()
    await storage.close()
    await tasks.close()
