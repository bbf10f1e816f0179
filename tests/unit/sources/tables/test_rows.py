"""Names of the reader of a table in the database."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.triggers.base import listener
from headrace.sources import SqlTable
from headrace.sources.tables.row_events import slot_of

TABLE = SqlTable("sqlite:///shop.db", "orders")
NAMES = st.text(st.sampled_from("ab_.-A0"), min_size=1, max_size=5).filter(
    lambda name: name[0] not in "_.-"
)
READERS = st.tuples(NAMES, NAMES, st.integers(0, 2))


def slot(app: str, function: str, place: int = 0) -> str:
    reads = listener(f"{app}.{function}", place, TABLE)
    assert reads is not None
    return slot_of(TABLE, reads.streams[0])


@given(READERS, READERS)
def test_no_two_readers_have_one_name(one: tuple[str, str, int], two: tuple[str, str, int]) -> None:
    assert re.fullmatch("[a-z0-9_]{1,63}", slot(*one))
    if (f"{one[0]}.{one[1]}", one[2]) != (f"{two[0]}.{two[1]}", two[2]):
        assert slot(*one) != slot(*two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("a", "b_c"), ("a_b", "c")),
        (("a-b", "c"), ("a_b", "c")),
        (("a", "b-c"), ("a", "b_c")),
        (("a", "b.c"), ("a", "b_c")),
    ],
)
def test_names_that_look_alike_once_escaped_are_distinguished(
    one: tuple[str, str], two: tuple[str, str]
) -> None:
    assert slot(*one) != slot(*two)


def test_a_name_that_can_be_reported_is_plain() -> None:
    assert slot("shop", "note") == "headrace_shop_note_table_0"
    assert slot("shop", "note_all", 2) == "headrace_shop_note_all_table_2"
    assert slot("shop", "n" * 60).startswith("headrace_shop_nnn")
