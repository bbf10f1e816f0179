"""Replication messages, read byte by byte as the protocol describes them."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Corrupt
from headrace.sources.tables.pgoutput import Decoder, Placed, lsn_number, lsn_text, value_of

BEGIN = b"B" + struct.pack(">qqi", (1 << 32) | 0xAB, 1_000, 7)
COMMIT = b"C" + struct.pack(">bqqq", 0, (1 << 32) | 0xAB, (1 << 32) | 0xFF, 1_000)
RELATION = (
    b"R"
    + struct.pack(">I", 9)
    + b"public\0orders\0"
    + struct.pack(">ch", b"d", 2)
    + b"\1id\0"
    + struct.pack(">Ii", 23, -1)
    + b"\0note\0"
    + struct.pack(">Ii", 25, -1)
)


def row(*cells: bytes | None) -> bytes:
    reported = (
        b"n" if cell is None else b"t" + struct.pack(">i", len(cell)) + cell for cell in cells
    )
    return struct.pack(">h", len(cells)) + b"".join(reported)


def read(*messages: bytes) -> list[Placed]:
    decoder = Decoder()
    return [placed for each in messages if (placed := decoder.feed(each)) is not None]


def test_each_change_has_its_place_in_its_transaction() -> None:
    number = struct.pack(">I", 9)
    placed = read(
        BEGIN,
        RELATION,
        b"I" + number + b"N" + row(b"1", b"a"),
        b"U" + number + b"K" + row(b"1", None) + b"N" + row(b"2", b"b"),
        b"D" + number + b"O" + row(b"2", b"b"),
        COMMIT,
    )
    assert [(each.change.position, each.done) for each in placed] == [
        ("1/AB/0", 1),
        ("1/AB/1", 2),
        ("1/AB/2", 3),
    ]
    assert [(each.change.op, each.change.before, each.change.after) for each in placed] == [
        ("insert", None, {"id": 1, "note": "a"}),
        ("update", {"id": 1}, {"id": 2, "note": "b"}),
        ("delete", {"id": 2, "note": "b"}, None),
    ]
    assert placed[0].change.time == 946_684_800_001_000


def test_a_large_value_that_did_not_change_is_named_or_taken_from_the_old_row() -> None:
    number, same = struct.pack(">I", 9), struct.pack(">h", 2) + b"t\0\0\0\x011u"
    (unknown,) = read(RELATION, b"U" + number + b"N" + same)
    assert (unknown.change.after, unknown.change.unchanged) == ({"id": 1}, ("note",))
    (known,) = read(RELATION, b"U" + number + b"O" + row(b"1", b"long") + b"N" + same)
    assert (known.change.after, known.change.unchanged) == ({"id": 1, "note": "long"}, ())


def test_a_transaction_is_open_until_its_commit_says_where_it_ends() -> None:
    decoder = Decoder()
    decoder.feed(BEGIN)
    assert (decoder.open, decoder.ended) == (True, 0)
    decoder.feed(COMMIT)
    assert (decoder.open, decoder.ended) == (False, (1 << 32) | 0xFF)


@pytest.mark.parametrize(
    ("text", "oid", "value"),
    [
        (b"t", 16, True),
        (b"9007199254740993", 20, 9_007_199_254_740_993),
        (b"0.1", 701, 0.1),
        (b"NaN", 701, "nan"),
        (b"1.10", 1700, "1.10"),
        (b"\\x00ff", 17, "AP8="),
        (b'{"a": 1.10}', 3802, msgspec.Raw(b'{"a": 1.10}')),
        (b"2026-01-01 00:00:00+00", 1184, "2026-01-01 00:00:00+00"),
    ],
)
def test_a_value_is_exact_or_stays_text(text: bytes, oid: int, value: Any) -> None:
    found = value_of(text, oid)
    assert (found, type(found)) == (value, type(value))


@given(st.integers(0, (1 << 64) - 1))
def test_a_place_in_the_log_reads_back_as_written(lsn: int) -> None:
    assert lsn_number(lsn_text(lsn)) == lsn


@given(st.binary(max_size=40))
def test_what_is_no_message_is_refused_and_never_crashes(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(RELATION)
    with suppress(Corrupt):
        assert decoder.feed(data) is None or data[:1] in {b"I", b"U", b"D", b"T"}
