"""A file dropped, a file replaced, and a host that dies in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from function import app

from headrace.testing import World


def test_each_version_of_a_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (inbox := tmp_path / "inbox").mkdir()

    with World(app) as world:
        (inbox / "one.csv").write_text("item,count\nrope,2\nsalt,1\n")
        (inbox / "notes.txt").write_text("not meant")
        world.advance("5s")
        world.crash()
        (inbox / "one.csv").write_text("item,count\nrope,20\n")
        world.advance("5s")
        assert [(row["item"], row["count"]) for row in world.values("lines")] == [
            ("rope", "2"),
            ("salt", "1"),
            ("rope", "20"),
        ]


def test_the_total_of_the_last_file_comes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (inbox := tmp_path / "inbox").mkdir()

    with World(app) as world:
        (inbox / "one.csv").write_text("item,count\nrope,2\nsalt,1\n")
        world.advance("5s")
        world.crash()
        (inbox / "two.csv").write_text("item,count\nrope,20\n")
        world.advance("5s")
        assert world.values("totals") == []
        world.advance("20s")
        assert sorted((one["key"], one["value"]) for one in world.values("totals")) == [
            ("one.csv", 3),
            ("two.csv", 20),
        ]


def test_a_file_that_one_run_could_not_publish_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (inbox := tmp_path / "inbox").mkdir()
    rows = 2_000
    long = "".join(f"{'rope ' * 1_000},{number}\n" for number in range(rows))

    with World(app) as world:
        (inbox / "large.csv").write_text(f"item,count\n{long}")
        world.advance("1m")
        assert [int(row["count"]) for row in world.values("lines")] == list(range(rows))
