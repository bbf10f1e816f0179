"""A real folder under real writers: the kernel's hints, heard on a real loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

from headrace import Files
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.function import StreamSpec
from headrace.sources.base import SourceAppender
from headrace.sources.files.source import FilesSource
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

OWN = "_app.read.files.0"
PATIENCE_S = 10.0
BURST = 2_000
IN_TWO_STEPS = """
import os, sys
for number in range(int(sys.argv[2])):
    file = os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY)
    os.write(file, b"1" * number)
    os.sched_yield()
    os.write(file, b"12")
    os.close(file)
"""


class Feed:
    """A source at work on `inbox`, and what it has said."""

    def __init__(self, broker: EmbeddedBroker, inbox: Path) -> None:
        self.inbox = inbox
        self._broker = broker
        self._reader = broker.subscribe("test", (OWN,)).reader(OWN, 0, 0)
        self._told: list[tuple[str, str, int | None]] = []

    async def told(self, count: int) -> list[tuple[str, str, int | None]]:
        """The first `count` things said: event, name and size."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self._told) < count:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._reader.watch(waiter)
                await waiter
                for chunk in await self._reader.read(events=1_000, size=1 << 20):
                    values: list[dict[str, Any]] = [json.loads(e.value) for e in chunk.events()]
                    self._told += [(v["event"], v["name"], v["size"]) for v in values]
        return self._told


@asynccontextmanager
async def feeding(tmp_path: Path, **settings: Any) -> AsyncIterator[Feed]:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    clock = SystemClock()
    faults: list[BaseException] = []
    tasks = Tasks(lambda name, error: faults.append(error))
    storage = await SqliteStorage.open(tmp_path / "data", clock=clock)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name=OWN))
    feed = Feed(broker, inbox)
    source = FilesSource(Files(str(inbox), **settings), clock)
    tasks.start(source.run(SourceAppender(storage, broker, storage.apply, stream=OWN)), name="feed")
    try:
        # The first look is over, and the kernel is listened to.
        write(inbox / "begin", "")
        await feed.told(1)
        feed._told.clear()
        yield feed
    finally:
        await tasks.close()
        await broker.close()
        await storage.close()
    assert not faults


def made(path: Path) -> TextIO:
    return path.open("w")


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_writer_that_dawdles_is_waited_for_though_others_do_not(tmp_path: Path) -> None:
    async with feeding(tmp_path, settle=0) as feed:
        with made(feed.inbox / "slow") as slow:
            write(feed.inbox / "quick", "1")
            assert await feed.told(1) == [("created", "quick", 1)]
            slow.write("half")
            slow.flush()
            write(feed.inbox / "next", "12")
            assert await feed.told(2) == [("created", "quick", 1), ("created", "next", 2)]
            slow.write(" and half")
        assert (await feed.told(3))[2] == ("created", "slow", 13)


async def test_every_file_of_a_burst_is_told_once_and_whole(tmp_path: Path) -> None:
    async with feeding(tmp_path, settle=0) as feed:
        for number in range(200):
            write(feed.inbox / f"{number}", "x" * number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        told = await feed.told(200)
        assert sorted(told, key=lambda each: int(each[1])) == [
            ("created", str(number), number) for number in range(200)
        ]


async def test_files_that_another_process_writes_in_two_steps_are_told_whole(
    tmp_path: Path,
) -> None:
    async with feeding(tmp_path, settle=0) as feed:
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", IN_TWO_STEPS, str(feed.inbox), str(BURST)
        )
        told = await feed.told(BURST)
        assert await writer.wait() == 0
        assert sorted(told, key=lambda each: int(each[1])) == [
            ("created", str(number), number + 2) for number in range(BURST)
        ]


async def test_what_was_being_written_before_its_folder_was_watched_is_told_whole(
    tmp_path: Path,
) -> None:
    (tmp_path / "sub").mkdir()
    async with feeding(tmp_path, settle=0, recursive=True) as feed:
        with made(tmp_path / "sub" / "slow") as slow:
            slow.write("half")
            slow.flush()
            (tmp_path / "sub").rename(feed.inbox / "sub")
            write(feed.inbox / "next", "1")
            assert await feed.told(1) == [("created", "next", 1)]
            slow.write(" and half")
            slow.flush()
            write(feed.inbox / "other", "1")
            assert len(await feed.told(2)) == 2
        assert (await feed.told(3))[2] == ("created", "sub/slow", 13)


async def test_a_file_is_told_long_before_the_next_poll(tmp_path: Path) -> None:
    async with feeding(tmp_path, settle=0) as feed:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(10):
            write(feed.inbox / f"{number}", "1")
            await feed.told(number + 1)
        # The folder is read every minute by itself; hints make it milliseconds, even on a busy machine.
        assert loop.time() - began < 5


async def test_links_and_renames_are_told_though_nobody_closes_them(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "123")
    async with feeding(tmp_path, settle=0) as feed:
        (feed.inbox / "linked").hardlink_to(tmp_path / "elsewhere")
        assert await feed.told(1) == [("created", "linked", 3)]
        (feed.inbox / "linked").rename(feed.inbox / "renamed")
        told = (await feed.told(3))[1:]
        assert sorted(told) == [("created", "renamed", 3), ("deleted", "linked", None)]


async def test_a_folder_that_is_moved_away_and_made_anew_is_listened_to(tmp_path: Path) -> None:
    async with feeding(tmp_path, settle=0, recursive=True) as feed:
        (feed.inbox / "sub").mkdir()
        write(feed.inbox / "sub" / "a", "1")
        await feed.told(1)
        (feed.inbox / "sub").rename(tmp_path / "away")
        (feed.inbox / "sub").mkdir()
        await feed.told(2)
        write(feed.inbox / "sub" / "b", "12")
        assert (await feed.told(3))[1:] == [("deleted", "sub/a", None), ("created", "sub/b", 2)]


def test_where_others_use_up_what_the_machine_allows_the_folder_is_polled(tmp_path: Path) -> None:
    """In a user namespace of its own, in which one watch may be had."""
    within = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 1 >/proc/sys/user/max_inotify_watches && exec "$@"',
        "sh",
    ]
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespace can be had")
    asked = "from tests.integration import test_file_events as here; here.main()"
    ran = subprocess.run(
        [*within, sys.executable, "-c", asked, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout == "created sub/late 3\n", ran.stderr


async def _told_deep(folder: Path) -> None:
    async with feeding(folder, settle=0, recursive=True) as feed:
        (feed.inbox / "sub").mkdir()
        write(feed.inbox / "sub" / "early", "1")
        await feed.told(1)
        write(feed.inbox / "sub" / "late", "123")
        sys.stdout.write("{} {} {}\n".format(*(await feed.told(2))[1]))


def main() -> None:
    """Watch two folders, as the test above has it done in a process of its own."""
    asyncio.run(_told_deep(Path(sys.argv[1])))
