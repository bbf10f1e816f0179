"""A full disk turns producers away, lets consumers finish, and is forgotten once there is room."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import DiskFull
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.sqlite.disk_space import RESERVE_NAME
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

BODY = encode_events([Event(os.urandom(100_000))])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(storage: SqliteStorage) -> int:
    """Append until there is no room; says how many events were acknowledged."""
    for acknowledged in range(2_000):
        try:
            await storage.apply(Change(appends=(Append("s", 0, 1, BODY),)))
        except DiskFull:
            return acknowledged
    raise AssertionError("the disk never filled up")


@pytest.mark.root
async def test_a_full_disk_drains_and_service_resumes_by_itself(small_disk: Path) -> None:
    clock = SystemClock()
    failures: list[BaseException] = []
    tasks = Tasks(lambda _name, error: failures.append(error))
    storage = await SqliteStorage.open(small_disk / "data", clock=clock)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name="s", retention_bytes=1_000_000))
    hog = small_disk / "hog"
    hog.write_bytes(b"\0" * (16 << 20))

    acknowledged = await fill(storage)

    assert acknowledged > 20
    assert storage.low
    assert not (small_disk / "data" / RESERVE_NAME).exists()
    with pytest.raises(DiskFull, match="nothing of this was stored"):
        await storage.apply(Change(appends=(Append("s", 0, 1, BODY),)))
    for number in range(50):
        await storage.apply(Change(puts=(Put(Space.POSITIONS, b"group", b"%d" % number),)))
    assert (await broker.extent("s", 0)).high == acknowledged

    hog.unlink()
    await broker.sweep()
    async with asyncio.timeout(5):
        while True:
            try:
                await storage.apply(Change(appends=(Append("s", 0, 1, BODY),)))
                break
            except DiskFull:
                await clock.sleep(0.05)
    assert (await broker.extent("s", 0)).high == acknowledged + 1
    assert (small_disk / "data" / RESERVE_NAME).exists()

    await broker.close()
    await storage.close()
    await tasks.close()
    assert failures == []
    again = await SqliteStorage.open(small_disk / "data", clock=clock)
    assert await again.get(Space.POSITIONS, b"group") == b"49"
    await again.close()


@pytest.mark.root
async def test_a_disk_that_is_really_full_loses_nothing_acknowledged(small_disk: Path) -> None:
    clock = SystemClock()
    storage = await SqliteStorage.open(small_disk / "data", clock=clock)
    written = 0
    refused = False
    while not refused and written < 2_000:
        try:
            await storage.apply(Change(puts=(Put(Space.STATE, b"%06d" % written, BODY),)))
            written += 1
        except DiskFull:
            refused = True
    assert refused
    assert written > 100
    with pytest.raises(DiskFull):
        await storage.apply(Change(puts=(Put(Space.STATE, b"zzz", BODY * 10),)))
    await storage.close()
    again = await SqliteStorage.open(small_disk / "data", clock=clock)
    found = [key for key, _ in await again.scan(Space.STATE, b"", limit=5_000)]
    assert found == [b"%06d" % number for number in range(written)]
    await again.close()
