"""Promises of the embedded log beyond the contract: bounds in memory, and bytes that are true."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.errors import Corrupt, Misuse
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, Chunk, encode_events
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.kv.open import open_storage
from headrace.storage.kv.sqlite.data_folder import FILE_NAME, DataFile
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.storage.log.embedded.tail_cache import CHUNK_OVERHEAD, TailCache
from headrace.storage.log.log_state import Partition
from headrace.storage.log.memory import MemoryBroker
from headrace.storage.log.open import open_broker

MANY = 1_000_000


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    failures: list[BaseException] = []
    group = Tasks(lambda _name, error: failures.append(error))
    yield group
    await group.close()
    assert failures == []


async def open_log(folder: Path, tasks: Tasks) -> tuple[SqliteStorage, EmbeddedBroker]:
    clock = SystemClock()
    storage = await SqliteStorage.open(folder, clock=clock, reserve=4096)
    return storage, EmbeddedBroker(storage, clock=clock, tasks=tasks)


def chunk(first: int, size: int) -> Chunk:
    return Chunk("s", 0, first, 1, b"x" * size, 0, 0, 1)


def test_the_tail_keeps_its_bound_and_drops_the_oldest_of_all_partitions() -> None:
    tail = TailCache(100_000)
    first, second = Partition(1, "s", 0), Partition(2, "s", 1)
    for number in range(100):
        partition = first if number % 2 else second
        made = chunk(number, 2_000)
        partition.chunk_list.add(made)
        tail.landed([(partition, made)])
        held = first.chunk_list.chunks + second.chunk_list.chunks
        assert sum(len(each.body) + CHUNK_OVERHEAD for each in held) == tail.size <= 100_000
        assert sorted(each.first for each in held) == list(
            range(number + 1 - len(held), number + 1)
        )


def test_a_chunk_that_housekeeping_took_costs_its_followers_nothing() -> None:
    tail = TailCache(10_000)
    partition = Partition(1, "s", 0)
    made = [chunk(number, 1_000) for number in range(4)]
    for each in made:
        partition.chunk_list.add(each)
        tail.landed([(partition, each)])
    partition.chunk_list.drop_first(2)
    late = chunk(4, 6_000)
    partition.chunk_list.add(late)
    tail.landed([(partition, late)])
    assert partition.chunk_list.chunks[-1] is late
    assert [each.first for each in partition.chunk_list.chunks] == [3, 4]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("body", "substr(body, 1, 5) || x'ff' || substr(body, 7)"),
        ("count", "count + 1"),
        ("appended", "appended + 1"),
        ("hops", "hops + 1"),
        ("origin", "'forged'"),
        ("offsets", "x'0000000000000007'"),
    ],
)
async def test_a_row_that_the_disk_has_changed_is_noticed(
    tmp_path: Path, tasks: Tasks, column: str, value: str
) -> None:
    storage, broker = await open_log(tmp_path, tasks)
    await broker.declare(StreamSpec(name="s"))
    for text in (b"first event", b"second event"):
        await storage.apply(Change(appends=(Append("s", 0, 1, encode_events([Event(text)])),)))
    await broker.close()
    await storage.close()
    damaged = DataFile(tmp_path)
    damaged.writer.execute(
        f"UPDATE log SET {column} = CAST({value} AS BLOB) WHERE id = (SELECT min(id) FROM log)"
        if column in {"body", "offsets"}
        else f"UPDATE log SET {column} = {value} WHERE id = (SELECT min(id) FROM log)"
    )
    damaged.close()
    storage, broker = await open_log(tmp_path, tasks)
    with pytest.raises(Corrupt, match=r"`s/0/0`.*checksum"):
        await broker.fetch("s", 0, 0, events=MANY, size=MANY)
    (sound,) = await broker.fetch("s", 0, 1, events=MANY, size=MANY)
    assert sound.events()[0].value == b"second event"
    await broker.close()
    await storage.close()


async def test_a_batch_is_one_row_and_small_appends_of_one_commit_share_one(
    tmp_path: Path, tasks: Tasks
) -> None:
    storage, broker = await open_log(tmp_path, tasks)
    await broker.declare(StreamSpec(name="s"))
    await storage.apply(Change(appends=(Append("s", 0, 500, encode_events([Event(b"x")] * 500)),)))
    assert storage.query("SELECT count(*) FROM log") == [(1,)]
    one = Append("s", 0, 1, encode_events([Event(b"y")]))
    await storage.apply(Change(appends=(one,) * 100))
    assert storage.query("SELECT count(*) FROM log") == [(2,)]
    await broker.close()
    await storage.close()


async def test_a_reader_that_keeps_up_never_reads_from_the_disk(
    tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, broker = await open_log(tmp_path, tasks)
    await broker.declare(StreamSpec(name="s"))
    reader = broker.subscribe("g", ("s",)).reader("s", 0, 0)

    def read(*_: object) -> None:
        raise AssertionError("the disk was read")

    monkeypatch.setattr(storage, "rows", read)
    monkeypatch.setattr(storage, "query", read)
    for _ in range(20):
        await storage.apply(
            Change(appends=(Append("s", 0, 10, encode_events([Event(b"x")] * 10)),))
        )
        assert sum(each.size for each in await reader.read(events=MANY, size=MANY)) == 10
    monkeypatch.undo()
    await broker.close()
    await storage.close()


async def test_housekeeping_runs_by_itself(tmp_path: Path, tasks: Tasks) -> None:
    clock = SystemClock()
    storage = await SqliteStorage.open(tmp_path, clock=clock, reserve=4096)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks, sweep=0.0)
    await broker.declare(StreamSpec(name="s", retention_bytes=0))
    await storage.apply(Change(appends=(Append("s", 0, 1, encode_events([Event(b"x")])),)))
    while (await broker.extent("s", 0)).low == 0:
        await clock.sleep(0)
    await broker.close()
    await storage.close()


async def test_a_url_opens_its_driver(tmp_path: Path, tasks: Tasks) -> None:
    clock = SystemClock()
    sqlite = await open_storage("embedded", folder=tmp_path, clock=clock)
    memory = await open_storage("memory:", folder=tmp_path, clock=clock)
    assert (tmp_path / FILE_NAME).exists()
    assert isinstance(sqlite, SqliteStorage)
    assert isinstance(memory, MemoryStorage)
    embedded = open_broker("embedded", storage=sqlite, clock=clock, tasks=tasks)
    twin = open_broker("memory:", storage=memory, clock=clock, tasks=tasks)
    assert isinstance(embedded, EmbeddedBroker)
    assert isinstance(twin, MemoryBroker)
    for url, storage in (("embedded", memory), ("memory:", sqlite)):
        with pytest.raises(Misuse, match="storage of the same kind"):
            open_broker(url, storage=storage, clock=clock, tasks=tasks)
    with pytest.raises(Misuse, match=r"`kafka://x`.*`embedded`, `memory:`"):
        open_broker("kafka://x", storage=sqlite, clock=clock, tasks=tasks)
    with pytest.raises(Misuse, match=r"`oracle://x`.*`embedded`, `memory:`"):
        await open_storage("oracle://x", folder=tmp_path, clock=clock)
    await embedded.close()
    await twin.close()
    await sqlite.close()
    await memory.close()
