"""Notifications of the kernel for real files: which are busy, and what is worth a look."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.sources.files.inotify import Inotify, InotifyEvents, Writing, busy_and_whole


@pytest.fixture
async def hints(tmp_path: Path) -> AsyncIterator[Inotify]:
    inotify = Inotify(str(tmp_path))
    inotify.watch({""})
    yield inotify
    inotify.close()


def wakes(hints: Inotify) -> bool:
    """Return True where there is something to see since the last time."""
    was = hints._changed.is_set()
    hints._changed.clear()
    return was


def busy(hints: Inotify) -> set[str]:
    """The files that are being written, by all that the kernel has said."""
    return busy_and_whole({}, hints.catch_up())[0]


def whole(hints: Inotify) -> set[str]:
    """The files that their writers have closed."""
    heard = hints.catch_up()
    return busy_and_whole(heard, heard)[1]


async def test_a_file_is_busy_from_its_making_to_its_closing(
    hints: Inotify, tmp_path: Path
) -> None:
    file = (tmp_path / "a").open("w")
    assert busy(hints) == {"a"}
    file.write("half")
    file.flush()
    assert busy(hints) == {"a"}
    assert not wakes(hints)
    file.close()
    assert busy(hints) == set()
    assert wakes(hints)


async def test_a_file_that_is_written_again_is_busy_from_the_first_byte(
    hints: Inotify, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("1")
    hints.catch_up()
    with (tmp_path / "a").open("a") as file:
        assert busy(hints) == set()
        file.write("2")
        file.flush()
        assert busy(hints) == {"a"}
    assert busy(hints) == set()


async def test_readers_wake_nobody_and_end_nobodys_writing(hints: Inotify, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file:
        file.write("1")
        file.flush()
        (tmp_path / "a").read_text()
        assert busy(hints) == {"a"}
    hints.catch_up()
    wakes(hints)
    (tmp_path / "a").read_text()
    os.listdir(tmp_path)  # noqa: PTH208 - iterdir is forbidden in an async function
    assert busy(hints) == set()
    assert not wakes(hints)


async def test_a_link_is_reported_though_nobody_closes_it(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "elsewhere").write_text("1")
    hints = Inotify(str(inside))
    hints.watch({""})
    os.link(tmp_path / "elsewhere", inside / "linked")
    assert busy(hints) == set()
    assert wakes(hints)
    assert whole(hints) == set()
    hints.close()


async def test_a_file_that_is_opened_long_after_it_was_made_is_busy(
    hints: Inotify, tmp_path: Path
) -> None:
    os.mknod(tmp_path / "a")
    assert busy(hints) == set()
    with (tmp_path / "a").open("w"):
        assert busy(hints) == {"a"}
    assert whole(hints) == {"a"}


async def test_a_reader_of_a_file_that_its_maker_has_not_started_does_not_make_it_whole(
    hints: Inotify, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("w") as file:
        hints.catch_up()
        (tmp_path / "a").read_text()
        assert whole(hints) == set()
        file.write("1")
    assert whole(hints) == {"a"}


@pytest.mark.parametrize("end", ["close", "rename"])
async def test_what_its_writer_has_ended_is_whole_until_it_is_written_again(
    hints: Inotify, tmp_path: Path, end: str
) -> None:
    if end == "close":
        (tmp_path / "a").write_text("1")
    else:
        (tmp_path / "part").write_text("1")
        (tmp_path / "part").rename(tmp_path / "a")
    assert "a" in whole(hints)
    with (tmp_path / "a").open("a") as file:
        file.write("2")
        file.flush()
        assert "a" not in whole(hints)


def test_a_file_that_was_written_while_it_was_looked_at_is_not_whole_yet() -> None:
    closed = {"a": InotifyEvents(Writing.WHOLE, 1)}
    assert busy_and_whole(closed, closed) == (set(), {"a"})
    assert busy_and_whole({}, closed) == (set(), set())
    assert busy_and_whole(closed, {"a": InotifyEvents(Writing.WHOLE, 3)}) == (set(), set())


async def test_what_was_reported_is_forgotten_and_what_is_being_written_is_not(
    hints: Inotify, tmp_path: Path
) -> None:
    (tmp_path / "reported").write_text("1")
    (tmp_path / "open").write_text("1")
    with (tmp_path / "written").open("w"):
        hints.forget(hints.catch_up(), keep={"open"})
        assert hints.catch_up().keys() == {"open", "written"}


async def test_a_file_made_to_be_read_is_reported_when_it_is_closed(
    hints: Inotify, tmp_path: Path
) -> None:
    file = os.open(tmp_path / "a", os.O_CREAT | os.O_RDONLY)
    assert busy(hints) == {"a"}
    wakes(hints)
    os.close(file)
    assert busy(hints) == set()
    assert wakes(hints)


@pytest.mark.parametrize("end", ["rename", "replace", "unlink"])
async def test_a_file_that_leaves_or_is_replaced_is_worth_a_look(
    hints: Inotify, tmp_path: Path, end: str
) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    hints.catch_up()
    wakes(hints)
    match end:
        case "rename":
            (tmp_path / "a").rename(tmp_path / "c")
        case "replace":
            (tmp_path / "a").replace(tmp_path / "b")
        case _:
            (tmp_path / "a").unlink()
    assert busy(hints) == set()
    assert wakes(hints)


async def test_a_folder_that_comes_is_worth_a_look(hints: Inotify, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    hints.catch_up()
    assert wakes(hints)


async def test_who_writes_on_under_a_name_that_another_has_taken_keeps_nobody_busy(
    hints: Inotify, tmp_path: Path
) -> None:
    (tmp_path / "next").write_text("12")
    with (tmp_path / "a").open("w") as old:
        (tmp_path / "next").rename(tmp_path / "a")
        hints.catch_up()
        old.write("still here")
        old.flush()
        assert busy(hints) == set()


async def test_a_folder_that_takes_the_name_of_one_moved_away_is_watched(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    (inbox / "sub").mkdir(parents=True)
    hints = Inotify(str(inbox))
    hints.watch({"", "sub"})
    for name, away in ("sub", "elsewhere"), ("", "former"):
        (inbox / name).rename(tmp_path / away)
        (inbox / name).mkdir(parents=True)
        hints.catch_up()
        assert wakes(hints)
        assert hints.watch({""} if not name else {"", name})
        hints.catch_up()
        wakes(hints)
        (inbox / name / "new").write_text("1")
        hints.catch_up()
        assert wakes(hints)
    hints.close()


async def test_what_was_written_in_a_folder_that_is_moved_is_busy_no_more(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    hints = Inotify(str(tmp_path))
    hints.watch({"", "sub"})
    with (tmp_path / "sub" / "a").open("w") as file:
        file.write("1")
        file.flush()
        assert busy(hints) == {"sub/a"}
        (tmp_path / "sub").rename(tmp_path / "moved")
        assert busy(hints) == set()
    hints.close()


async def test_a_folder_that_has_gone_since_it_was_found_is_passed_by(hints: Inotify) -> None:
    assert not hints.watch({"", "gone"})
