"""A backup of a file that is being written to is one state, whole, and can be opened as a data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import Corrupt, Misuse, Unavailable
from headrace.storage.kv.sqlite.backup import back_up
from headrace.storage.kv.sqlite.data_folder import FILE_NAME
from headrace.storage.kv.sqlite.storage import SqliteStorage


async def opened(folder: Path) -> SqliteStorage:
    return await SqliteStorage.open(folder, clock=SystemClock(), reserve=4096)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(key: bytes, value: bytes) -> Change:
    return Change(puts=(Put(Space.STATE, key, value),))


async def test_a_backup_of_an_open_folder_is_restored_by_opening_it(tmp_path: Path) -> None:
    storage = await opened(tmp_path / "data")
    await storage.apply(put(b"before", b"1" * 9_000))
    restored = tmp_path / "restored"
    restored.mkdir()
    size = back_up(tmp_path / "data", restored / FILE_NAME)
    await storage.apply(put(b"after", b"2"))
    await storage.close()
    assert size == (restored / FILE_NAME).stat().st_size
    assert names(restored) == [FILE_NAME]
    assert (restored / FILE_NAME).stat().st_mode & 0o777 == 0o600
    again = await opened(restored)
    assert await again.get(Space.STATE, b"before") == b"1" * 9_000
    assert await again.get(Space.STATE, b"after") is None
    await again.apply(put(b"next", b"3"))
    await again.close()


async def test_pages_of_a_backup_keep_their_checksums(tmp_path: Path) -> None:
    storage = await opened(tmp_path / "data")
    await storage.apply(put(b"bad", b"wrong" * 300))
    restored = tmp_path / "restored"
    restored.mkdir()
    back_up(tmp_path / "data", restored / FILE_NAME)
    await storage.close()
    found = bytearray((restored / FILE_NAME).read_bytes())
    found[found.index(b"wrongwrong")] ^= 1
    (restored / FILE_NAME).write_bytes(found)
    with pytest.raises(Corrupt):
        back_up(restored, tmp_path / "second")
    assert names(tmp_path) == ["data", "restored"]


async def test_what_cannot_be_backed_up_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="name the node's data folder"):
        back_up(tmp_path / "none", tmp_path / "copy")
    storage = await opened(tmp_path / "data")
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(Misuse, match="exists already"):
        back_up(tmp_path / "data", tmp_path / "copy")
    with pytest.raises(Unavailable, match="cannot be written"):
        back_up(tmp_path / "data", tmp_path / "absent" / "copy")
    await storage.close()
    assert (tmp_path / "copy").read_text() == "mine"
