"""Folders that are watched for edits; no edit is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from headrace.environment.clock import SystemClock
from headrace.model.errors import DiskFull, Misuse
from headrace.model.function import AppSpec
from headrace.node.assembly import Node
from headrace.node.config import Settings
from headrace.node.lifecycle import load_again
from headrace.node.watcher import Watcher, folder_of, names_of


def test_a_target_leads_to_the_folder_its_code_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    (away / "shop").mkdir(parents=True)
    (away / "shop" / "app.py").write_text("")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for target in ("../away/shop", "../away/shop/app.py", "../away/shop/app.py:app"):
        assert folder_of(target) == away / "shop"
    assert folder_of("company.shop:app").resolve() == here


class Loading:
    """A node that loads apps, or raises the given error for each target."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.loaded: list[str] = []
        self.settings = Settings()
        self.clock = SystemClock()

    def adopt(self, settings: Settings) -> None:
        self.settings = settings

    async def deploy(self, target: str) -> AppSpec:
        if target in self.errors:
            raise self.errors[target]
        self.loaded.append(target)
        return AppSpec(name=target, version="1")


async def test_an_edit_that_cannot_be_loaded_while_the_disk_is_full_is_loaded_later() -> None:
    node, stale = Loading(b=DiskFull("the disk is full")), {"a", "b", "c"}
    with pytest.raises(DiskFull):
        await load_again(cast("Node", node), stale)
    assert (node.loaded, stale) == (["a"], {"b", "c"})
    node.errors.clear()
    await load_again(cast("Node", node), stale)
    assert (node.loaded, stale) == (["a", "b", "c"], set())


async def test_a_broken_edit_waits_for_the_next_edit() -> None:
    node, stale = Loading(a=Misuse("a comma is missing")), {"a", "b"}
    await load_again(cast("Node", node), stale)
    assert (node.loaded, stale) == (["b"], set())


@pytest.mark.asyncio
async def test_a_reload_takes_the_settings_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = Loading()
    (tmp_path / "headrace.toml").write_text("[apps.shop.settings]\nRATE = 2\n")
    await load_again(cast("Node", node), {"shop.py"})
    assert [(each.name, each.value) for each in node.settings.apps] == [("shop.RATE", 2)]
    (tmp_path / "headrace.toml").write_text("[apps.shop.settings\n")
    await load_again(cast("Node", node), {"shop.py"})
    assert [each.value for each in node.settings.apps] == [2]
    assert node.loaded == ["shop.py", "shop.py"]


@pytest.mark.asyncio
async def test_the_settings_file_matters_wherever_it_lies_and_the_data_folder_does_not(
    tmp_path: Path,
) -> None:
    app, settings = tmp_path / "app", tmp_path / "etc" / "headrace.toml"
    settings.parent.mkdir()
    (app / "data").mkdir(parents=True)
    settings_of_node = Settings(
        targets=(str(app / "shop.py"),), data=app / "data", source=str(settings)
    )
    watcher = Watcher(settings_of_node, frozenset, asyncio.Event())
    assert [
        watcher.matters(path)
        for path in (
            settings,
            settings.with_name("other.toml"),
            app / "shop.py",
            app / "prices.json",
            app / "data" / "headrace.db-wal",
            app / "data" / "files" / "made.py",
        )
    ] == [True, False, True, True, False, False]


def test_files_that_changed_are_named_up_to_a_number(tmp_path: Path) -> None:
    assert names_of([Path("gone/b.py"), Path("gone/a.py"), Path("away/b.py")]) == "a.py, b.py"
    assert names_of([Path(f"gone/{name}.py") for name in "abcdef"]).endswith("d.py and 2 more")
    (tmp_path / "shop.py").write_text("")
    assert names_of([tmp_path / "sedA1", tmp_path / "shop.py"]) == "shop.py"
