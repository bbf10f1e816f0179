"""Texts that are joined to a name of one thing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.event import fenced

TEXTS = st.text("ab%/#2F3", max_size=6)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_what_is_joined_by_a_mark_comes_of_one_pair_only(a: str, b: str, c: str, d: str) -> None:
    for mark in "/#":
        same = f"{fenced(a, mark)}{mark}{b}" == f"{fenced(c, mark)}{mark}{d}"
        assert same == ((a, b) == (c, d))


def test_a_text_without_the_mark_stays_as_it_is() -> None:
    assert fenced("/shop/orders", "#") == "/shop/orders"
    assert fenced("a#b%c", "#") == "a%23b%25c"
