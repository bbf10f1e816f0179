"""Folders of apps' own files, with and without a node."""

from __future__ import annotations

from pathlib import Path

from headrace import App, Event
from headrace.sdk.app_folder import FolderRoot
from headrace.testing import World


def test_an_app_without_a_node_has_a_temporary_folder_that_stays() -> None:
    app = App("folder-alone")
    (app.folder / "a").write_text("x")
    assert app.folder.is_dir()
    assert (app.folder / "a").read_text() == "x"
    assert App("folder-other").folder != app.folder


def test_a_node_says_where_and_hears_of_the_first_look(tmp_path: Path) -> None:
    folders, heard = FolderRoot(), list[str]()
    folders.stand(str(tmp_path), heard.append)
    assert heard == []
    assert folders.folder("shop") == folders.folder("shop") == tmp_path / "shop"
    assert heard == [str(tmp_path / "shop")]


def test_a_temporary_folder_goes_with_who_made_it() -> None:
    folders = FolderRoot()
    made = folders.folder("shop")
    assert made.is_dir()
    del folders
    assert not made.exists()


def test_each_world_begins_with_an_empty_folder() -> None:
    app = App("folder-world")
    lines = app.stream("lines")
    file = app.folder / "lines"

    @app.function(lines)
    def keep(event: Event[str]) -> None:
        with file.open("a") as out:
            out.write(event.value)

    for _ in range(2):
        with World(app) as world:
            assert not file.exists()
            world.publish(lines, "a", "b")
            world.run_until_idle()
            world.crash()
            world.run_until_idle()
            assert file.read_text() == "ab"
