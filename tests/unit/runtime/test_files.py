"""The folders of apps, and who they belong to."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from headrace.model.errors import Unavailable
from headrace.runtime.app_folders import GROUPS, AppFolders
from headrace.runtime.child.file_advice import advice, too_early
from headrace.runtime.child.shared_files import database_file

FIRST = 5_000


def test_a_target_has_the_same_group_in_every_life_of_a_node(tmp_path: Path) -> None:
    one, two = (AppFolders(tmp_path / "files", first=FIRST) for _ in range(2))
    two.share("other.py")
    assert one.share("shop.py") == two.share("shop.py")
    assert FIRST <= one.share("shop.py").group < FIRST + GROUPS


def test_targets_and_nodes_have_different_groups(tmp_path: Path) -> None:
    files = AppFolders(tmp_path / "files", first=FIRST)
    groups = {files.share(f"{number}.py").group for number in range(3_000)}
    assert len(groups) == 3_000
    assert AppFolders(tmp_path / "b", first=FIRST).share("0.py") != files.share("0.py")


def test_a_folder_of_a_host_without_ids_is_the_hosts_alone(tmp_path: Path) -> None:
    files = AppFolders(tmp_path / "files", first=FIRST)
    files.share("shop.py")
    files.give("shop", "shop.py", shared=False)
    found = (tmp_path / "files" / "shop").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_that_was_put_back_is_given_to_the_group_with_all_it_holds(tmp_path: Path) -> None:
    files = AppFolders(tmp_path / "files", first=FIRST)
    group = files.share("shop.py").group
    inner = tmp_path / "files" / "shop" / "inner"
    inner.mkdir(parents=True)
    secret, outside = inner / "secret", tmp_path / "outside"
    for each in (secret, outside):
        each.touch(mode=0o600)
    (inner / "link").symlink_to(outside)
    os.mkfifo(inner / "pipe")
    files.give("shop", "shop.py", shared=True)
    assert (secret.stat().st_gid, stat.S_IMODE(secret.stat().st_mode)) == (group, 0o660)
    assert (inner.stat().st_gid, inner.stat().st_mode & stat.S_ISGID) == (group, stat.S_ISGID)
    assert (outside.stat().st_gid, stat.S_IMODE(outside.stat().st_mode)) == (0, 0o600)


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file/files"):
        AppFolders(tmp_path / "file" / "files", first=FIRST).share("shop.py")


@pytest.mark.parametrize(
    ("told", "file"),
    [
        ("a.db", "a.db"),
        (Path("a.db"), "a.db"),
        (b"a.db", "a.db"),
        ("file:/x/a%20b.db?mode=rwc", "/x/a b.db"),
        ("file:/x/a.db", "/x/a.db"),
        ("file:/x/a.db?mode=ro", None),
        ("file:a?mode=memory&cache=shared", None),
        (7, None),
    ],
)
def test_the_file_of_a_database_is_told_from_how_it_is_opened(
    told: object, file: str | None
) -> None:
    assert database_file(told) == file


def test_errors_about_files_say_what_to_do() -> None:
    assert "Path(__file__).parent / 'a.csv'" in advice(FileNotFoundError(2, "none", "a.csv"))
    assert "may write to its app's folder" in advice(PermissionError(13, "no", "/etc/x"))
    assert "may write to its app's folder" in advice(OSError(30, "read-only", "/etc/x"))
    locked = sqlite3.OperationalError("unable to open database file")
    locked.sqlite_errorcode = 14
    assert "keep a database in `app.folder`" in advice(locked)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "none", "/a.csv"),
        FileNotFoundError(2, "none"),
        PermissionError(1, "no"),
        ValueError("no"),
        sqlite3.OperationalError("no such table"),
    ],
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert advice(error) == too_early(error) == ""
