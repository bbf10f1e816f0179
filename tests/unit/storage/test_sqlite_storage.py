"""Promises of the SQLite store beyond the contract: the folder, its errors, its groups."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from tests.unit.storage.bad_disk import BadDisk, Ended, end

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import DiskFull, Locked, Misuse, Overloaded, Refused, Unavailable
from headrace.model.policy import MAX_CHANGES_PER_GROUP
from headrace.model.stores import WINDOWS, StoreAddress
from headrace.storage.kv.keys import pack
from headrace.storage.kv.sqlite import data_folder as data_file
from headrace.storage.kv.sqlite import storage as module
from headrace.storage.kv.sqlite.data_folder import FILE_NAME, DataFile
from headrace.storage.kv.sqlite.group_commit import Group, PendingChange
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.state.rows import rows_of


def put(key: bytes, value: bytes = b"v") -> Change:
    return Change(puts=(Put(Space.STATE, key, value),))


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096)
    yield opened
    await opened.close()


def test_a_second_process_is_refused_with_folder_and_holder(tmp_path: Path) -> None:
    holder = DataFile(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from headrace.storage.kv.sqlite.data_folder import DataFile\n"
        "from headrace.model.errors import Locked\n"
        "try: DataFile(Path(sys.argv[1]))\n"
        "except Locked as error: print(error)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    holder.close()
    assert f"`{tmp_path}`" in printed
    assert f"process {os.getpid()};" in printed
    assert "stop that node" in printed


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EISDIR, Unavailable)]
)
def test_a_file_that_cannot_be_made_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    really = os.open

    def refuse(path: Path, *rest: int) -> int:
        if Path(path).name == "headrace.db":
            raise OSError(number, os.strerror(number))
        return really(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(kind, match=r"headrace\.db` cannot be opened"):
            DataFile(tmp_path)
    DataFile(tmp_path).close()


async def test_the_folder_is_free_again_after_closing(tmp_path: Path) -> None:
    for _ in range(2):
        opened = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096)
        with pytest.raises(Locked):
            DataFile(tmp_path)
        await opened.close()


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(Refused, match=r"SQLite 3\.51\.2.*apsw>=3\.51\.3"):
        DataFile(tmp_path)
    assert data_file.OLDEST_SQLITE == (3, 51, 3)


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    first = DataFile(tmp_path)
    first.writer.pragma("user_version", 99)
    first.close()
    with pytest.raises(Misuse, match="newer Headrace"):
        DataFile(tmp_path)
    with pytest.raises(Misuse, match="newer Headrace"):
        DataFile(tmp_path)


async def test_state_of_an_older_form_becomes_a_store_and_windows_move_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = DataFile(tmp_path)
    for table in ("windows", "state"):
        first.writer.execute(f"DROP TABLE {table}")
    first.writer.execute(
        "CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID"
    )
    held = {pack("shop", key): key.encode() for key in ("a", "seen/\u00fc", "x\0y", "state", "")}
    window = pack("\0shop", "_window/shop.count/orders/0/key/=a/b\0")
    first.writer.executemany("INSERT INTO state VALUES (?, ?)", [*held.items(), (window, b"w")])
    first.writer.pragma("user_version", 3)
    first.close()
    storage = await SqliteStorage.open(tmp_path, clock=SystemClock())
    store = rows_of(StoreAddress("shop", "", "state"))
    assert await storage.scan(Space.STATE, b"") == sorted(
        (store.key(key.decode()), key) for key in held.values()
    )
    windows = rows_of(StoreAddress("shop", "shop.count", WINDOWS))
    assert await storage.get(Space.WINDOWS, windows.key("orders/0/key/=a/b\0")) == b"w"
    assert len(await storage.scan(Space.WINDOWS, b"")) == 1
    await storage.close()
    assert 'declare it with `app.store("state")`' in caplog.text
    caplog.clear()
    await (await SqliteStorage.open(tmp_path, clock=SystemClock())).close()
    assert not caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match=r"`.*file/data`"):
        DataFile(tmp_path / "file" / "data")


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    opened = DataFile(tmp_path)
    assert opened.writer.pragma("journal_mode") == "wal"
    assert opened.writer.pragma("synchronous") == 2
    opened.close()


async def test_changes_that_come_together_share_commits(tmp_path: Path) -> None:
    disk = BadDisk()
    syncs: list[str] = []

    def count(kind: str, name: str) -> None:
        if kind == "sync" and name.endswith("-wal"):
            syncs.append(name)

    opened = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name)
    await opened.apply(put(b"warm"))
    disk.fail = count
    many = 3 * MAX_CHANGES_PER_GROUP
    await asyncio.gather(*(opened.apply(put(b"%d" % n)) for n in range(many)))
    assert len(syncs) == 3
    await opened.close()


class TimeByLooking(SystemClock):
    """A clock on which time passes with each look."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self._now = 0.0
        self._step = step

    def monotonic(self) -> float:
        self._now += self._step
        return self._now


async def commits_of_a_trickle(folder: Path, *, turns: int, step: float = 0.0) -> int:
    """Commits for twenty changes of which each comes some turns of the loop after the other."""
    disk = BadDisk()
    opened = await SqliteStorage.open(
        folder, clock=TimeByLooking(step), reserve=4096, vfs=disk.name
    )
    opened._pace.expected = 0.001
    await asyncio.gather(opened.apply(put(b"in")), opened.apply(put(b"company")))
    syncs: list[str] = []
    disk.fail = lambda kind, name: (
        syncs.append(name) if kind == "sync" and name.endswith("-wal") else None
    )

    async def late(number: int) -> None:
        for _ in range(turns * number):
            await asyncio.sleep(0)
        await opened.apply(put(b"%d" % number))

    await asyncio.gather(*map(late, range(20)))
    await opened.close()
    return len(syncs)


async def test_a_group_waits_for_changes_that_keep_coming(tmp_path: Path) -> None:
    assert await commits_of_a_trickle(tmp_path / "close", turns=1) <= 2
    assert await commits_of_a_trickle(tmp_path / "single", turns=6) > 10


async def test_a_group_waits_no_longer_than_two_commits_take(tmp_path: Path) -> None:
    assert await commits_of_a_trickle(tmp_path, turns=1, step=0.0004) > 3


async def test_no_caller_is_answered_before_the_disk_has_it(tmp_path: Path) -> None:
    disk = BadDisk()
    opened = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name)
    await opened.apply(put(b"warm"))
    order: list[str] = []
    disk.fail = lambda kind, _name: order.append(kind) if kind == "sync" else None
    applied = asyncio.create_task(opened.apply(put(b"key")))
    applied.add_done_callback(lambda _task: order.append("answered"))
    await applied
    await asyncio.wait([applied], timeout=0)
    assert order[0] == "sync"
    assert "answered" in order[1:]
    await opened.close()


async def test_a_failing_fsync_ends_the_process_and_is_not_tried_again(tmp_path: Path) -> None:
    disk = BadDisk()
    opened = await SqliteStorage.open(
        tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name, fatal=end
    )
    await opened.apply(put(b"safe"))
    tried: list[str] = []

    def fail(kind: str, name: str) -> None:
        if kind == "sync":
            tried.append(name)
            raise apsw.IOError

    disk.fail = fail
    group = Group([PendingChange(asyncio.get_running_loop().create_future(), put(b"lost"))])
    assert opened._stage(group)
    with pytest.raises(Ended, match="stopping"):
        opened._commit(group)
    assert len(tried) == 1
    assert not group.waiting[0].future.done()
    disk.fail = lambda _kind, _name: None
    opened._undo()
    await opened.close()


async def test_a_full_disk_fails_only_what_did_not_land(tmp_path: Path) -> None:
    disk = BadDisk()
    opened = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name)
    await opened.apply(put(b"before"))

    def full(kind: str, name: str) -> None:
        if kind == "write" and name.endswith("-wal"):
            raise apsw.FullError

    disk.fail = full
    with pytest.raises(DiskFull, match="free some space"):
        await opened.apply(put(b"during"))
    disk.fail = lambda _kind, _name: None
    await opened.apply(put(b"after"))
    assert [key for key, _ in await opened.scan(Space.STATE, b"")] == [b"after", b"before"]
    await opened.close()


async def test_a_change_that_cannot_be_written_fails_alone(
    storage: SqliteStorage,
) -> None:
    bad = storage.write([("INSERT INTO state (key, value) VALUES (?, ?)", [(b"bad", None)])])
    results = await asyncio.gather(
        storage.apply(put(b"a")),
        bad,
        storage.apply(
            Change(checks=(Check(Space.STATE, b"a", b"v"),), puts=(Put(Space.STATE, b"b", b"w"),))
        ),
        return_exceptions=True,
    )
    assert isinstance(results[1], Unavailable)
    assert "NOT NULL" in str(results[1])
    assert await storage.scan(Space.STATE, b"") == [(b"a", b"v"), (b"b", b"w")]


async def test_a_queue_that_is_too_long_is_refused(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_CHANGES", 5)
    results = await asyncio.gather(
        *(storage.apply(put(b"%d" % n)) for n in range(8)), return_exceptions=True
    )
    assert [isinstance(result, Overloaded) for result in results] == [False] * 5 + [True] * 3
    await storage.apply(put(b"again"))
    assert len(await storage.scan(Space.STATE, b"")) == 6


async def test_a_cancelled_caller_does_not_disturb_the_others(storage: SqliteStorage) -> None:
    leaving = asyncio.create_task(storage.apply(put(b"leaving")))
    staying = asyncio.create_task(storage.apply(put(b"staying")))
    await asyncio.wait([leaving], timeout=0)
    leaving.cancel()
    await staying
    assert await storage.get(Space.STATE, b"staying") == b"v"
    await storage.apply(put(b"later"))


async def test_commits_on_the_thread_keep_every_promise(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage._pace, "in_place", lambda _size: False)
    steps = [
        Change(
            checks=(Check(Space.STATE, b"n", b"%d." % n if n else None),),
            puts=(Put(Space.STATE, b"n", b"%d." % (n + 1)),),
        )
        for n in range(600)
    ]
    await asyncio.gather(*map(storage.apply, steps))
    assert await storage.get(Space.STATE, b"n") == b"600."
    await asyncio.gather(*(storage.apply(put(b"k%d" % n)) for n in range(10)))


async def test_the_write_ahead_log_stays_short(storage: SqliteStorage) -> None:
    wal = storage.folder / f"{FILE_NAME}-wal"
    value = os.urandom(400_000)
    largest = 0
    for number in range(150):
        await storage.apply(put(b"%d" % (number % 7), value))
        largest = max(largest, wal.stat().st_size)
    assert largest < 40 << 20


@pytest.mark.parametrize(
    ("label", "landed"),
    [
        ("commit:before-write", None),
        ("commit:after-write", None),
        ("commit:before-fsync", None),
        ("commit:after-fsync", b"v"),
    ],
)
async def test_a_fault_is_an_unknown_outcome_and_the_store_goes_on(
    storage: SqliteStorage, label: str, landed: bytes | None
) -> None:
    def fault() -> None:
        raise RuntimeError("planted")

    failpoints.arm(label, fault)
    try:
        with pytest.raises(Unavailable, match="planted"):
            await storage.apply(put(b"key"))
    finally:
        failpoints.disarm()
    assert await storage.get(Space.STATE, b"key") == landed
    await storage.apply(put(b"later"))
    assert await storage.get(Space.STATE, b"later") == b"v"
