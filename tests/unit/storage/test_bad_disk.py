"""Whichever call to the disk fails, nothing acknowledged is missing afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.unit.storage.bad_disk import BadDisk, Ended, end

from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import DiskFull
from headrace.storage.kv.sqlite.storage import SqliteStorage

VALUE = b"v" * 3_000


def failing(kind: str, nth: int, error: type[Exception]) -> Callable[[str, str], None]:
    """Fail the `nth` call of `kind`, and every later one."""
    left = nth

    def fail(called: str, _name: str) -> None:
        nonlocal left
        if called == kind:
            left -= 1
            if left <= 0:
                raise error

    return fail


async def write(storage: SqliteStorage, acknowledged: set[bytes]) -> None:
    async def one(key: bytes) -> None:
        await storage.apply(Change(puts=(Put(Space.STATE, key, VALUE),)))
        acknowledged.add(key)

    for batch in range(10):
        await asyncio.gather(*(one(b"%d.%d" % (batch, each)) for each in range(4)))


async def stored(folder: Path) -> set[bytes]:
    again = await SqliteStorage.open(folder, clock=SystemClock(), reserve=4096)
    rows = await again.scan(Space.STATE, b"")
    assert all(value == VALUE for _, value in rows)
    await again.close()
    return {key for key, _ in rows}


@pytest.mark.parametrize("nth", [*range(1, 12), 20, 40, 60])
async def test_a_disk_that_fills_up_at_any_write(tmp_path: Path, nth: int) -> None:
    disk = BadDisk()
    storage = await SqliteStorage.open(
        tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name, fatal=end
    )
    acknowledged: set[bytes] = set()
    disk.fail = failing("write", nth, apsw.FullError)
    with pytest.raises(DiskFull):
        await write(storage, acknowledged)
    disk.fail = lambda _kind, _name: None
    await storage.apply(Change(puts=(Put(Space.STATE, b"afterwards", VALUE),)))
    await storage.close()
    assert await stored(tmp_path) == acknowledged | {b"afterwards"}


# Where the disk is slow, commits are made in a thread, which then ends by what `end` raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8])
async def test_a_disk_that_breaks_at_any_call_ends_the_process_and_keeps_what_it_said(
    tmp_path: Path, kind: str, nth: int
) -> None:
    disk = BadDisk()
    ended: list[str] = []
    loop = asyncio.get_running_loop()
    died = asyncio.Event()

    def note(message: str) -> None:
        ended.append(message)
        loop.call_soon_threadsafe(died.set)
        # The process would be gone: nothing more may be tried on this disk, or be answered.
        end(message)

    storage = await SqliteStorage.open(
        tmp_path, clock=SystemClock(), reserve=4096, vfs=disk.name, fatal=note
    )
    acknowledged: set[bytes] = set()
    disk.fail = failing(kind, nth, apsw.IOError)

    def caught(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), Ended):
            loop.default_exception_handler(context)

    loop.set_exception_handler(caught)
    writing = asyncio.create_task(write(storage, acknowledged))
    await asyncio.wait_for(died.wait(), timeout=10)
    assert not writing.done()
    assert len(ended) == 1
    writing.cancel()
    # Its threads would fail whichever test comes next: the one that is ending, and any that waits.
    storage._commit_thread.close()
    storage._checkpointer.close()
    disk.fail = lambda _kind, _name: None
    if storage._file.writer.in_transaction:
        storage._file.writer.execute("ROLLBACK")
    storage._file.close()
    assert acknowledged <= await stored(tmp_path)
