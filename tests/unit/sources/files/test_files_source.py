"""A real folder watched by the real engine on virtual time: every version once, whatever dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from headrace import App, Event, Files
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.sources import Objects, Sftp
from headrace.sources.files.source import unsure_of
from headrace.testing import World


def watching(folder: Path, **settings: Any) -> App:
    app = App("inbox")
    seen = app.stream("seen")

    @app.function(Files(str(folder), **settings), output=seen)
    def note(event: Event[Any]) -> str:
        assert event.key == event.value["name"]
        return f"{event.value['event']} {event.value['name']} {event.value['size']}"

    return app


def test_files_are_reported_when_they_come_change_and_go(tmp_path: Path) -> None:
    (tmp_path / "before.txt").write_text("was here")
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        assert world.values("seen") == ["created before.txt 8"]
        (tmp_path / "a.txt").write_text("one")
        world.advance("3s")
        (tmp_path / "a.txt").write_text("three")
        world.advance("3s")
        (tmp_path / "a.txt").unlink()
        world.advance("3s")
        assert world.values("seen")[1:] == [
            "created a.txt 3",
            "modified a.txt 5",
            "deleted a.txt None",
        ]


def test_the_path_that_is_reported_can_be_opened_from_wherever_a_function_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App("inbox")
    paths = app.stream("paths")

    @app.function(Files("."), output=paths)
    def note(event: Event[Any]) -> str:
        return str(event.value["path"])

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one")
    with World(app) as world:
        world.advance("3s")
        assert world.values("paths") == [str(tmp_path / "a.txt")]


def test_what_happened_while_no_node_was_up_is_reported_at_its_return(tmp_path: Path) -> None:
    (tmp_path / "stays").write_text("1")
    (tmp_path / "goes").write_text("1")
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        world.crash()
        (tmp_path / "goes").unlink()
        (tmp_path / "comes").write_text("12")
        world.advance("5s")
        assert world.values("seen")[2:] == ["created comes 2", "deleted goes None"]


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "pump", "claim"))]
)
def test_a_host_that_dies_between_two_steps_neither_loses_nor_doubles_a_file(
    label: str, tmp_path: Path
) -> None:
    with World(watching(tmp_path, settle=0)) as world:
        for number in range(6):
            (tmp_path / f"{number}").write_text("x" * number)
            world.crash(label, number % 3 + 1)
            world.advance("2s")
        world.advance("1m")
        assert sorted(world.values("seen")) == [f"created {number} {number}" for number in range(6)]


def test_a_file_that_nobody_says_is_closed_is_reported_when_it_has_grown(tmp_path: Path) -> None:
    with World(watching(tmp_path, settle=0, poll=0.4)) as world:
        world.advance("1s")
        for _ in range(5):
            with (tmp_path / "grows").open("a") as file:
                file.write("12")
            world.advance(0.3)
        assert world.values("seen") == []
        world.advance("3s")
        assert world.values("seen") == ["created grows 10"]


@pytest.mark.parametrize(
    ("trigger", "seconds"),
    [
        (Files("inbox"), 1.0),
        (Files("inbox", poll=0.05), 0.05),
        (Files("inbox", poll=60), 1.0),
        (Sftp("sftp://me@host/drop", settle=0), 1.0),
        (Objects("s3://bucket/in"), 0.0),
        (Objects("file:///srv/in"), 1.0),
    ],
)
def test_where_nothing_says_that_a_file_is_whole_it_is_looked_at_twice(
    trigger: Files | Objects | Sftp, seconds: float
) -> None:
    assert unsure_of(trigger) == seconds


def test_only_what_the_pattern_and_the_events_name_is_reported(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tmp"):
        (tmp_path / name).write_text("")
    with World(watching(tmp_path, glob="*.csv", events=("deleted",))) as world:
        world.advance("3s")
        for name in ("a.csv", "a.tmp"):
            (tmp_path / name).unlink()
        world.advance("3s")
        assert world.values("seen") == ["deleted a.csv None"]


def test_folders_within_are_watched_only_where_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "f").write_text("1")
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        assert world.values("seen") == []
    with World(watching(tmp_path, recursive=True, glob="deep/*")) as world:
        world.advance("3s")
        assert world.values("seen") == ["created deep/er/f 1"]


def test_no_symbolic_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret").write_text("s")
    (inside / "file").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    os.mkfifo(inside / "pipe")
    (inside / "real").write_text("")
    with World(watching(inside, recursive=True)) as world:
        world.advance("3s")
        assert world.values("seen") == ["created real 0"]


def test_a_folder_that_cannot_be_read_deletes_nothing(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a").write_text("1")
    with World(watching(inbox)) as world:
        world.advance("3s")
        inbox.rename(tmp_path / "away")
        world.advance("10s")
        sources = world._lives.node.supervisor.sources
        trouble = sources.trouble("_inbox.note.files.0")
        assert trouble is not None
        assert "cannot be read" in trouble.error
        (tmp_path / "away").rename(inbox)
        world.advance("2m")
        assert sources.trouble("_inbox.note.files.0") is None
        assert world.values("seen") == ["created a 1"]


def test_a_folder_that_is_made_late_is_well_as_soon_as_it_is_read(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    with World(watching(inbox)) as world:
        world.advance("3s")
        sources = world._lives.node.supervisor.sources
        missing = sources.trouble("_inbox.note.files.0")
        assert missing is not None
        assert missing.failures > 1
        inbox.mkdir()
        world.advance("5s")
        assert sources.trouble("_inbox.note.files.0") is None
        inbox.rmdir()
        world.advance("2s")
        again = sources.trouble("_inbox.note.files.0")
        assert again is not None
        assert again.since > missing.since


def test_a_name_that_is_not_text_does_not_stop_the_others(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff")).write_text("1")
    (tmp_path / "good").write_text("1")
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        world.crash()
        world.advance("3s")
        assert world.values("seen") == ["created bad\ufffd 1", "created good 1"]


def test_names_that_look_alike_once_they_are_text_are_reported_each(tmp_path: Path) -> None:
    for odd in (b"/\xfd", b"/\xfe", b"/\xff"):
        Path(os.fsdecode(bytes(tmp_path) + odd)).write_text("1")
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        assert world.values("seen") == ["created \ufffd 1"] * 3


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_within_that_nobody_is_let_into_deletes_nothing(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(0o777)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a").write_text("1")
    with World(watching(tmp_path, recursive=True)) as world:
        world.advance("3s")
        inner.chmod(mode)
        with somebody_else(tmp_path):
            (tmp_path / "b").write_text("1")
            world.advance("10s")
        inner.chmod(0o755)
        (inner / "c").write_text("1")
        world.advance("10s")
        assert world.values("seen") == ["created inner/a 1", "created b 1", "created inner/c 1"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system that keeps any time")
def test_a_time_no_row_can_hold_does_not_stop_the_folder() -> None:
    with TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "odd").write_text("1")
        os.utime(folder / "odd", (1e15, 1e15))
        with World(watching(folder)) as world:
            world.advance("3s")
            assert world.values("seen") == ["created odd 1"]


@contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """Run as a user who cannot read closed folders; root can."""
    if os.geteuid():
        yield
        return
    # Tests that run side by side have a folder more above them.
    for each in list(folder.parents)[:3]:
        if not each.stat().st_mode & 0o001:
            each.chmod(0o711)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"glob": ""}, "is not a glob"),
        ({"events": ("moved",)}, "`created`, `modified` or `deleted`"),
        ({"settle": -1}, "out of range"),
        ({"poll": 0}, "out of range"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        Files("inbox", **settings)


def test_names_that_look_alike_once_escaped_are_each_reported(tmp_path: Path) -> None:
    with World(watching(tmp_path)) as world:
        world.advance("3s")
        for name in (b"a\xff", b"a\\xff", b"a\\\\xff"):
            (tmp_path / os.fsdecode(name)).write_text("one")
        world.advance("3s")
        assert len(world.values("seen")) == 3
