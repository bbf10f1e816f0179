"""Texts that are joined to a name of one thing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.event import Event, fenced

TEXTS = st.text("ab%/#2F3", max_size=6)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_what_is_joined_by_a_mark_comes_of_one_pair_only(a: str, b: str, c: str, d: str) -> None:
    for mark in "/#":
        same = f"{fenced(a, mark)}{mark}{b}" == f"{fenced(c, mark)}{mark}{d}"
        assert same == ((a, b) == (c, d))


def test_a_text_without_the_mark_stays_as_it_is() -> None:
    assert fenced("/shop/orders", "#") == "/shop/orders"
    assert fenced("a#b%c", "#") == "a%23b%25c"


IDS = st.none() | st.text("s:/0", max_size=8) | st.sampled_from(["s/0/0", ":s/0/0", "s/0/00"])


@given(IDS, IDS)
def test_an_id_is_not_what_another_event_is_known_by(one: str | None, other: str | None) -> None:
    known = Event(b"", id=one).id_or("s/0/0"), Event(b"", id=other).id_or("s/0/0")
    assert (known[0] == known[1]) == (one == other)


def test_an_id_that_is_not_written_like_a_position_stays_as_it_is() -> None:
    for id in (
        "order-7",
        "queue/app/7",
        "s/0/7/1",
        ":7",
        "s/0/7 ",
        "a b/0/7",
        "s/0/\N{ARABIC-INDIC DIGIT ONE}",
    ):
        assert Event(b"", id=id).id_or("s/0/0") == id
