"""A bit that the disk has flipped is reported, and never read: in the file, and in its write-ahead log."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import Corrupt
from headrace.storage.kv.keys import pack
from headrace.storage.kv.sqlite.data_folder import FILE_NAME, MIGRATIONS, PAGE_BYTES, run
from headrace.storage.kv.sqlite.storage import SqliteStorage

LOG_NAME = f"{FILE_NAME}-wal"
FRAME_BYTES = 24 + PAGE_BYTES


async def opened(folder: Path) -> SqliteStorage:
    return await SqliteStorage.open(folder, clock=SystemClock(), reserve=4096)


def put(key: bytes, value: bytes, space: Space = Space.STATE) -> Change:
    return Change(puts=(Put(space, key, value),))


def flip(path: Path, place: int) -> None:
    found = bytearray(path.read_bytes())
    found[place] ^= 1
    path.write_bytes(found)


async def left_behind(folder: Path, commits: int = 6) -> Path:
    """A folder as a killed process leaves it: the commits stand in the write-ahead log alone."""
    storage = await opened(folder)
    for number in range(commits):
        await storage.apply(put(b"key", b"%d" % number * 100))
    copy = folder.with_name("copy")
    copy.mkdir()
    for name in (FILE_NAME, LOG_NAME):
        shutil.copy(folder / name, copy / name)
    await storage.close()
    return copy


async def test_a_flipped_value_is_corrupt_and_its_neighbours_are_read(tmp_path: Path) -> None:
    storage = await opened(tmp_path)
    await storage.apply(put(b"good", b"fine" * 300, Space.DEAD))
    await storage.apply(put(b"bad", b"wrong" * 300))
    await storage.close()
    flip(tmp_path / FILE_NAME, (tmp_path / FILE_NAME).read_bytes().index(b"wrongwrong"))
    again = await opened(tmp_path)
    with pytest.raises(Corrupt, match=r"headrace\.db` is damaged"):
        await again.get(Space.STATE, b"bad")
    with pytest.raises(Corrupt):
        await again.get_many(Space.STATE, [b"bad"])
    with pytest.raises(Corrupt):
        await again.scan(Space.STATE, b"")
    assert await again.get(Space.DEAD, b"good") == b"fine" * 300
    await again.close()


async def test_a_flipped_key_is_not_taken_for_a_key_that_is_absent(tmp_path: Path) -> None:
    storage = await opened(tmp_path)
    await storage.apply(put(b"remembered", b"v"))
    await storage.close()
    flip(tmp_path / FILE_NAME, (tmp_path / FILE_NAME).read_bytes().index(b"remembered"))
    again = await opened(tmp_path)
    with pytest.raises(Corrupt):
        await again.get(Space.STATE, b"remembered")
    await again.close()


async def test_a_change_that_meets_damage_fails_alone(tmp_path: Path) -> None:
    storage = await opened(tmp_path)
    await storage.apply(put(b"bad", b"wrong" * 300))
    await storage.close()
    flip(tmp_path / FILE_NAME, (tmp_path / FILE_NAME).read_bytes().index(b"wrongwrong"))
    again = await opened(tmp_path)
    meets = again.apply(put(b"bad", b"new"))
    passes = again.apply(put(b"other", b"new", Space.DEAD))
    with pytest.raises(Corrupt):
        await meets
    await passes
    assert await again.get(Space.DEAD, b"other") == b"new"
    await again.close()


@pytest.mark.parametrize("place", range(0, 100, 7))
async def test_a_flip_in_the_head_of_the_file_is_reported_or_harmless(
    tmp_path: Path, place: int
) -> None:
    storage = await opened(tmp_path)
    await storage.apply(put(b"key", b"v" * 3_000))
    await storage.close()
    flip(tmp_path / FILE_NAME, place)
    with contextlib.suppress(Corrupt):
        again = await opened(tmp_path)
        assert await again.get(Space.STATE, b"key") == b"v" * 3_000
        await again.close()


async def test_a_head_that_denies_its_checksums_is_not_believed(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    found = bytearray((tmp_path / FILE_NAME).read_bytes())
    found[20] = 0
    (tmp_path / FILE_NAME).write_bytes(found)
    with pytest.raises(Corrupt, match="no checksums"):
        await opened(tmp_path)


async def test_a_file_of_an_older_form_is_rewritten_with_checksums(tmp_path: Path) -> None:
    file = apsw.Connection(str(tmp_path / FILE_NAME))
    file.execute("PRAGMA journal_mode = WAL").fetchall()
    for number, script in enumerate(sorted(MIGRATIONS.glob("[0-9]*.sql"))[:2], start=1):
        run(file, f"{script.read_text()} PRAGMA user_version = {number};")
    rows = [(pack("a", f"{number}"), bytes(number)) for number in range(2_000)]
    file.executemany("INSERT INTO state VALUES (?, ?)", rows)
    file.close()
    assert (tmp_path / FILE_NAME).read_bytes()[20] == 0
    storage = await opened(tmp_path)
    # What functions of an app shared then is a store now.
    rows = [(pack("a", "state", f"{number}"), bytes(number)) for number in range(2_000)]
    assert await storage.scan(Space.STATE, b"", limit=9_999) == sorted(rows)
    await storage.close()
    assert (tmp_path / FILE_NAME).read_bytes()[20] == 8


def middle(log: bytes) -> int:
    return 32 + 2 * FRAME_BYTES + 24 + 50


def first_commit(log: bytes) -> int:
    """The commit mark of the first transaction of three that does not stand at the end."""
    return 32 + 4


@pytest.mark.parametrize(
    "place", [lambda _: 0, lambda _: 17, middle, first_commit, lambda _: 32 + 9, lambda _: 32 + 20]
)
async def test_a_write_ahead_log_damaged_before_other_commits_is_reported_and_kept(
    tmp_path: Path, place: Callable[[bytes], int]
) -> None:
    copy = await left_behind(tmp_path / "data")
    flip(copy / LOG_NAME, place((copy / LOG_NAME).read_bytes()))
    before = (copy / LOG_NAME).read_bytes(), (copy / FILE_NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(Corrupt, match="restore a copy"):
            await opened(copy)
        assert ((copy / LOG_NAME).read_bytes(), (copy / FILE_NAME).read_bytes()) == before


@pytest.mark.parametrize("kept", [1, FRAME_BYTES // 2, FRAME_BYTES - 1])
async def test_a_write_ahead_log_torn_at_its_end_is_read_as_far_as_it_goes(
    tmp_path: Path, kept: int
) -> None:
    copy = await left_behind(tmp_path / "data")
    found = (copy / LOG_NAME).read_bytes()
    (copy / LOG_NAME).write_bytes(found[: len(found) - FRAME_BYTES + kept])
    again = await opened(copy)
    assert await again.get(Space.STATE, b"key") == b"4" * 100
    await again.close()


async def test_frames_of_an_earlier_round_of_the_log_are_no_damage(tmp_path: Path) -> None:
    storage = await opened(tmp_path / "data")
    for number in range(30):
        await storage.apply(put(b"%d" % number, b"old" * 1_000))
    storage._file.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    await storage.apply(put(b"key", b"new"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (FILE_NAME, LOG_NAME):
        shutil.copy(tmp_path / "data" / name, copy / name)
    await storage.close()
    again = await opened(copy)
    assert await again.get(Space.STATE, b"key") == b"new"
    await again.close()
