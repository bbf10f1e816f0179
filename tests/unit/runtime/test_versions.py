"""The version of an app's code: what counts, and what does not since it changes while the app runs."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace import App, Event, Files
from headrace.model.errors import Misuse
from headrace.runtime.child import code_version
from headrace.runtime.child.code_version import CodeVersion, is_part, version_of, watched_by
from headrace.runtime.child.loader import described
from headrace.sources import SqlTable

APP = App("shop")


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app's, which no project of the machine is above of."""
    written(tmp_path, "pyproject.toml", "")
    written(tmp_path, "shop/app.py", "a = 1\n")
    return tmp_path / "shop"


def version(folder: Path, data_files: frozenset[Path] = frozenset()) -> CodeVersion:
    return version_of([folder], data_files)


@pytest.mark.parametrize("name", ["more.py", "sub/more.py"])
def test_every_python_file_counts_by_name_and_content(folder: Path, name: str) -> None:
    seen = {version(folder)}
    beside = written(folder, name, "b = 1\n")
    seen.add(version(folder))
    beside.write_text("b = 2\n")
    seen.add(version(folder))
    beside.rename(folder / "other.py")
    seen.add(version(folder))
    assert len({each.shown for each in seen}) == len({each.code for each in seen}) == 4


@pytest.mark.parametrize(
    "name", ["pages/order.html", "model.bin", "uv.lock", "requirements.txt", "../uv.lock"]
)
def test_data_and_lock_files_count_but_are_not_what_was_imported(folder: Path, name: str) -> None:
    first = version(folder)
    written(folder, name, "one")
    second = version(folder)
    written(folder, name, "two")
    third = version(folder)
    assert len({first.shown, second.shown, third.shown}) == 3
    assert first.code == second.code == third.code
    (folder / name).unlink()
    assert version(folder) == first


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".git/config",
        "__pycache__/app.pyc",
        "node_modules/a.js",
        "env/pyvenv.cfg",
        "env/x.py",
        "node.log",
        "nohup.out",
        "app.py~",
        "shop.db",
        "shop.sqlite3",
        "x.db-wal",
        "x-journal",
        "state/headrace.db",
        "state/node.json",
        "state/scratch/x.py",
        "cached/x.py",
        "pytest-cache-files-6ah9tgg5/README.md",
    ],
)
def test_what_changes_while_an_app_runs_does_not_count(folder: Path, name: str) -> None:
    written(folder, "env/pyvenv.cfg", "")
    written(folder, "state/headrace.db", "")
    written(folder, "cached/CACHEDIR.TAG", "")
    first = version(folder)
    file = written(folder, name, "one")
    assert version(folder) == first
    assert not is_part(file, folder, ())


def test_a_database_is_known_by_its_content_too(folder: Path) -> None:
    first = version(folder)
    with sqlite3.connect(folder / "orders") as opened:
        opened.execute("CREATE TABLE a (b)")
    opened.close()
    assert version(folder) == first
    assert not is_part(folder / "orders", folder, ())


def test_what_the_apps_own_triggers_watch_does_not_count(folder: Path) -> None:
    app = App("shop")

    @app.function(
        Files(str(folder / "inbox")),
        SqlTable(f"sqlite:///{folder}/orders.dat", table="orders", key_columns="id"),
    )
    def take(event: Event[Any]) -> None: ...

    data_files = watched_by(app.spec().functions)
    first = version(folder, data_files)
    for name in ("inbox/a.csv", "inbox/sub/b.csv", "orders.dat"):
        file = written(folder, name, "one")
        assert version(folder, data_files) == first
        assert version(folder) != first
        assert not is_part(file, folder, data_files)
        assert is_part(file, folder, ())
    assert is_part(written(folder, "inbox/code.py", ""), folder, data_files)
    assert version(folder, data_files) != first


def test_a_large_file_counts_by_size_and_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "MAX_READ", 3)
    file = written(folder, "model.bin", "large")
    os.utime(file, ns=(1, 1))
    first = version(folder)
    file.write_text("other")
    os.utime(file, ns=(1, 1))
    assert version(folder) == first
    os.utime(file, ns=(2, 2))
    assert version(folder) != first


def test_more_data_than_is_read_counts_by_size_and_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "MAX_DATA_BYTES", 3)
    written(folder, "a.txt", "one")
    file = written(folder, "b.txt", "two")
    os.utime(file, ns=(1, 1))
    first = version(folder)
    file.write_text("six")
    os.utime(file, ns=(1, 1))
    assert version(folder) == first
    written(folder, "a.txt", "two")
    assert version(folder) != first


def test_pipes_are_not_read(folder: Path) -> None:
    first = version(folder)
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.py")
    assert version(folder) == first


def test_the_environment_counts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "packages"
    (place / "thing-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    first = version(folder)
    (place / "thing-1.0.dist-info").rename(place / "thing-1.1.dist-info")
    second = version(folder)
    assert first.shown != second.shown
    assert first.code != second.code
    monkeypatch.setattr(sys, "version", "3.99")
    assert version(folder).code not in {first.code, second.code}


def test_a_module_of_a_package_is_as_much_as_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    written(tmp_path, "company_y/__init__.py", "")
    written(tmp_path, "company_y/shop.py", "")
    first, _ = described(APP, "company_y.shop:app")
    assert len(first.version) == 12
    written(tmp_path, "company_y/prices.py", "a = 1\n")
    second, _ = described(APP, "company_y.shop:app")
    assert first.version != second.version


def test_a_folder_too_large_for_a_version_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "MAX_SOURCES", 3)
    for number in range(5):
        written(folder, f"f{number}.py", "")
    with pytest.raises(Misuse, match="folder of its own"):
        version(folder)


def test_of_too_many_data_files_the_first_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "MAX_DATA", 1)
    written(folder, "a.txt", "")
    first = version(folder)
    written(folder, "b.txt", "")
    assert version(folder) == first
    written(folder, "a.txt", "changed")
    assert version(folder) != first
