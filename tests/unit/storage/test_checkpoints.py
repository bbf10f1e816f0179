"""The write-ahead log goes into the file while commits go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import apsw
import pytest
from tests.unit.storage.bad_disk import BadDisk

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.storage.kv.sqlite import checkpoint
from headrace.storage.kv.sqlite.checkpoint import CHECKPOINT_PAGES, Checkpointer
from headrace.storage.kv.sqlite.data_folder import PAGE_BYTES, DataFile, run
from headrace.storage.kv.sqlite.storage import SqliteStorage

if TYPE_CHECKING:
    from headrace.storage.kv.sqlite.commit_thread import CommitThread

LARGE = bytes(1 << 20)
DEADLINE_S = 60.0


def put(number: int, value: bytes) -> Change:
    return Change(puts=(Put(Space.STATE, b"k%d" % number, value),))


async def test_a_log_that_is_long_enough_is_copied_and_restarted(tmp_path: Path) -> None:
    passes: list[str] = []
    storage = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096)
    for label in ("checkpoint:before", "checkpoint:after"):
        failpoints.arm(label, partial(passes.append, label))
    try:
        await storage.apply(put(0, b""))
        assert passes == []
        count = CHECKPOINT_PAGES * PAGE_BYTES // len(LARGE) + 1
        # Together, so that they are one commit.
        await asyncio.gather(*(storage.apply(put(number, LARGE)) for number in range(count)))
        async with asyncio.timeout(DEADLINE_S):
            while "checkpoint:after" not in passes:
                await storage.apply(put(0, b""))
        assert passes == ["checkpoint:before", "checkpoint:after"]
    finally:
        failpoints.disarm()
        await storage.close()


class Later:
    """A thread whose work is done when the test says so."""

    def __init__(self) -> None:
        self.requests = 0
        self.is_closed = False
        self._work: list[Callable[[], Callable[[], None]]] = []

    def run(self, work: Callable[[], Callable[[], None]]) -> None:
        self.requests += 1
        self._work.append(work)

    def go(self) -> None:
        afterwards = self._work.pop(0)()
        afterwards()

    def close(self) -> None:
        self.is_closed = True


class Rig:
    """A checkpointer of a real file, and the work that it requests."""

    def __init__(self, folder: Path, vfs: str | None = None) -> None:
        self.file = DataFile(folder, vfs=vfs)
        self.thread = Later()
        self.ended: list[str] = []
        self.passes: list[str] = []
        run(self.file.writer, "CREATE TABLE IF NOT EXISTS filler (x)")
        thread = cast("CommitThread", self.thread)
        self.checkpointer = Checkpointer(self.file, thread, self.ended.append)
        for label in ("checkpoint:before", "checkpoint:after"):
            failpoints.arm(label, partial(self.passes.append, label))

    @property
    def log(self) -> tuple[int, int]:
        """The number of pages in the log, and of those that are in the file."""
        return self.file.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)

    def commit(self, pages: int) -> None:
        """A commit of somewhat more pages, and its end."""
        run(self.file.writer, f"INSERT INTO filler VALUES (zeroblob({pages * PAGE_BYTES}))")
        self.checkpointer.committed()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    found = Rig(tmp_path)
    yield found
    failpoints.disarm()
    found.file.close()


def limit(patch: pytest.MonkeyPatch, **pages: int) -> None:
    for name, count in pages.items():
        patch.setattr(checkpoint, f"{name.upper()}_PAGES", count)


def test_a_checkpoint_begins_at_so_many_pages_and_one_at_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.checkpointer.committed()
    rig.commit(30)
    limit(monkeypatch, checkpoint=rig.log[0] + 1)
    rig.checkpointer.committed()
    assert rig.thread.requests == 0
    limit(monkeypatch, checkpoint=rig.log[0])
    rig.checkpointer.committed()
    assert rig.thread.requests == 1
    rig.commit(30)
    assert rig.thread.requests == 1
    assert rig.passes == []


def test_the_bulk_is_copied_on_the_thread_and_the_rest_between_two_commits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, checkpoint=20, rest=100, long=1_000)
    rig.commit(30)
    rig.thread.go()
    total, copied = rig.log
    assert copied == total > 30
    assert rig.passes == ["checkpoint:before"]
    rig.commit(2)
    assert rig.passes == ["checkpoint:before", "checkpoint:after"]
    assert rig.log[0] == rig.log[1] < total
    rig.checkpointer.committed()
    assert rig.thread.requests == 1
    rig.commit(30)
    assert rig.thread.requests == 2


@pytest.mark.parametrize(
    ("rest", "long", "ends"), [(0, 0, True), (-1, 0, False), (-1, -1, True), (-100, -1, True)]
)
def test_the_rest_is_copied_where_it_is_short_or_the_log_is_very_long(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, rest: int, long: int, ends: bool
) -> None:
    limit(monkeypatch, checkpoint=20)
    rig.commit(30)
    rig.thread.go()
    run(rig.file.writer, f"INSERT INTO filler VALUES (zeroblob({30 * PAGE_BYTES}))")
    total, copied = rig.log
    assert copied == 0
    limit(monkeypatch, rest=total + rest, long=total + long)
    rig.checkpointer.committed()
    assert ("checkpoint:after" in rig.passes) is ends
    assert rig.log == (total, total if ends else 0)
    # One that could not end is followed by another.
    rig.checkpointer.committed()
    assert rig.thread.requests == (1 if ends else 2)


def test_a_log_that_grows_too_long_is_reported_once_until_it_is_short_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit(monkeypatch, checkpoint=20)
    for _ in range(2):
        limit(monkeypatch, alarm=100)
        rig.commit(600)
        rig.thread.go()
        limit(monkeypatch, rest=0, long=10_000)
        rig.commit(600)
        rig.commit(600)
        (message,) = caplog.messages
        assert f"the write-ahead log of {rig.file.path} has grown to 2 MiB" in message
        caplog.clear()
        limit(monkeypatch, rest=10_000)
        rig.thread.go()
        rig.commit(1)
    limit(monkeypatch, checkpoint=10_000)
    rig.commit(600)
    limit(monkeypatch, checkpoint=20, alarm=rig.log[0])
    rig.checkpointer.committed()
    assert not caplog.messages


@pytest.mark.parametrize("error", [apsw.FullError, apsw.BusyError])
def test_a_checkpoint_that_finds_the_disk_full_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    disk = BadDisk()
    rig = Rig(tmp_path, vfs=disk.name)
    limit(monkeypatch, checkpoint=20)
    rig.commit(30)

    def fail(kind: str, _name: str) -> None:
        if kind == "write":
            raise error

    disk.fail = fail
    rig.thread.go()
    disk.fail = lambda _kind, _name: None
    assert rig.log[1] == 0
    rig.commit(2)
    assert rig.log[0] == rig.log[1]
    assert rig.ended == []
    failpoints.disarm()
    rig.file.close()


def test_a_disk_that_breaks_in_a_checkpoint_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BadDisk()
    rig = Rig(tmp_path, vfs=disk.name)
    limit(monkeypatch, checkpoint=20)
    rig.commit(30)

    def fail(kind: str, _name: str) -> None:
        if kind == "write":
            raise apsw.IOError

    disk.fail = fail
    rig.thread.go()
    disk.fail = lambda _kind, _name: None
    (message,) = rig.ended
    assert f"the disk under `{tmp_path}` failed in a checkpoint" in message
    failpoints.disarm()
    rig.file.close()


def test_closing_waits_for_a_checkpoint_that_runs(rig: Rig) -> None:
    rig.checkpointer.close()
    assert rig.thread.is_closed
