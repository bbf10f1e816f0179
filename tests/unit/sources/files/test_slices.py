"""Files in slices: whole records, each byte once, however they are cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Event, Files
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.model.errors import Unavailable
from headrace.model.triggers.files import SliceBy
from headrace.sources.files import slices
from headrace.sources.files.slices import Slice, header_of, read_slice, records_of, shown, whole
from headrace.testing import World

BOTH = pytest.mark.parametrize("by", ["lines", "csv"])


@contextmanager
def opened(path: Path, content: bytes) -> Iterator[int]:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def all_of(descriptor: int, size: int, by: SliceBy) -> list[Slice]:
    found = [read_slice(descriptor, 0, size, by)]
    while found[-1].end < size:
        found.append(read_slice(descriptor, found[-1].end, size, by))
    return found


@pytest.mark.parametrize(
    ("data", "lines", "csv"),
    [
        (b"", 0, 0),
        (b"a", 0, 0),
        (b"a\nb", 2, 2),
        (b"a\r\nb\n", 5, 5),
        (b'"a\nb"\nc', 6, 6),
        (b'"a\nb', 3, 0),
        (b'x\n"a""\nb', 7, 2),
    ],
)
def test_what_has_ended_is_whole(data: bytes, lines: int, csv: int) -> None:
    assert (whole(data, "lines"), whole(data, "csv")) == (lines, csv)


@BOTH
@given(
    records=st.lists(
        st.sampled_from([b"", b"a,b", b'"x\ny",1', b'"say ""a""\r\n",2', "\u00e9".encode()]),
        max_size=60,
    ),
    size=st.integers(4, 40),
)
def test_slices_together_are_the_file_and_its_records(
    tmp_path_factory: pytest.TempPathFactory, by: SliceBy, records: list[bytes], size: int
) -> None:
    if by == "lines":
        records = [each for each in records if b"\n" not in each]
    content = b"".join(record + b"\n" for record in records)
    path = tmp_path_factory.getbasetemp() / "sliced"
    with pytest.MonkeyPatch.context() as patch, opened(path, content) as descriptor:
        patch.setattr(slices, "SLICE_BYTES", size)
        found = all_of(descriptor, len(content), by)
    assert b"".join(part.content for part in found) == content
    assert [record for part in found for record in records_of(part, by)] == records
    assert all(part.is_whole for part in found)


def test_a_record_that_is_too_long_comes_in_parts_and_nothing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 4)
    monkeypatch.setattr(slices, "MAX_RECORD_BYTES", 16)
    content = b"a\n" + b"x" * 40 + b"\nb\n"
    with opened(tmp_path / "long", content) as descriptor:
        found = all_of(descriptor, len(content), "lines")
    assert b"".join(part.content for part in found) == content
    assert [part.is_whole for part in found] == [True, False, False, True]


def test_a_file_that_is_shorter_than_it_was_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path / "short", b"a\n") as descriptor, pytest.raises(Unavailable):
        all_of(descriptor, 10, "lines")


def test_a_mark_of_the_encoding_is_part_of_no_record(tmp_path: Path) -> None:
    content = "\ufeffname,n\nrope,1\n".encode()
    with opened(tmp_path / "bom", content) as descriptor:
        assert header_of(descriptor, len(content)) == "name,n"
        (part,) = all_of(descriptor, len(content), "csv")
    assert shown(part, "csv")["records"] == ["rope,1"]


def test_bytes_that_are_not_text_are_handed_over_as_they_are() -> None:
    part = Slice(5, 8, b"\xe9\n1")
    assert shown(part, "lines") == {
        "begin": 5,
        "end": 8,
        "whole": True,
        "records": None,
        "base64": "6Qox",
    }


def reading(folder: Path, by: SliceBy = "lines", **settings: Any) -> App:
    app = App("inbox")
    seen = app.stream("seen")

    @app.function(Files(str(folder), slices=by, **settings), output=seen)
    def note(event: Event[Any]) -> dict[str, Any]:
        return dict(event.value)

    return app


def records_in(world: World, name: str = "f") -> list[str]:
    return [
        record
        for value in world.values("seen")
        if value["name"] == name
        for record in value["records"]
    ]


ROWS = [f"row {number}" for number in range(6_000)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 1 << 10)


@pytest.mark.usefixtures("small")
def test_a_large_file_is_handed_over_in_slices_and_an_empty_one_in_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("".join(f"{row}\n" for row in ROWS))
    (tmp_path / "none").write_text("")
    with World(reading(tmp_path)) as world:
        world.advance("1m")
        assert records_in(world) == ROWS
        parts = [value for value in world.values("seen") if value["name"] == "f"]
        assert len(parts) > 30
        assert [part["last"] for part in parts] == [False] * (len(parts) - 1) + [True]
        assert parts[0]["begin"] == 0
        assert [part["begin"] for part in parts[1:]] == [part["end"] for part in parts[:-1]]
        (none,) = (value for value in world.values("seen") if value["name"] == "none")
        assert (none["records"], none["last"], none["size"]) == ([], True, 0)


@pytest.mark.usefixtures("small")
def test_every_slice_of_a_csv_file_has_its_header(tmp_path: Path) -> None:
    rows = [f'{number},"two\nlines"' for number in range(1_000)]
    (tmp_path / "f").write_text("n,text\n" + "".join(f"{row}\n" for row in rows))
    with World(reading(tmp_path, "csv")) as world:
        world.advance("1m")
        assert {value["header"] for value in world.values("seen")} == {"n,text"}
        assert len(world.values("seen")) > 1
        assert records_in(world) == rows


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("label", [one for one in LABELS if one.startswith(("append", "feed"))])
def test_a_host_that_dies_amid_a_file_goes_on_where_it_was(tmp_path: Path, label: str) -> None:
    (tmp_path / "f").write_text("".join(f"{row}\n" for row in ROWS))
    with World(reading(tmp_path)) as world:
        for passes in (1, 1, 2):
            world.crash(label, passes)
            world.advance("30s")
        world.advance("2m")
        assert records_in(world) == ROWS


@pytest.mark.usefixtures("small")
def test_a_file_that_changes_while_it_is_read_starts_again_and_no_slice_mixes_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old\n" * 6_000)
    usual, reads = os.pread, 0

    def read(*given: Any) -> bytes:
        nonlocal reads
        reads += 1
        found = usual(*given)
        if reads == 12:
            path.write_text("new\n" * 5_000)
        return found

    monkeypatch.setattr(os, "pread", read)
    with World(reading(tmp_path)) as world:
        world.advance("1m")
        values = world.values("seen")
        assert all(len(set(value["records"])) == 1 for value in values)
        new = [value for value in values if value["size"] == 20_000]
        assert new[0]["begin"] == 0
        assert sum(len(value["records"]) for value in new) == 5_000
        assert values[: len(values) - len(new)] == [v for v in values if v["size"] == 24_000]
        world.crash()
        world.advance("1m")
        assert len(world.values("seen")) == len(values)


@pytest.mark.usefixtures("small")
def test_a_file_that_goes_while_it_is_read_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("old\n" * 8_000)
    (tmp_path / "g").write_text("1\n")
    usual, reads = os.pread, 0

    def read(*given: Any) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 12:
            (tmp_path / "f").unlink()
        return usual(*given)

    monkeypatch.setattr(os, "pread", read)
    with World(reading(tmp_path)) as world:
        world.advance("1m")
        assert records_in(world, "g") == ["1"]


def test_the_way_of_slicing_is_checked_and_survives_being_written_down() -> None:
    with pytest.raises(Misuse, match="use `lines` or `csv`"):
        Files("inbox", slices="words")  # type: ignore[arg-type]  # as an author may
    files = Files("inbox", slices="csv")
    assert msgspec.convert(msgspec.to_builtins(files), Files) == files
