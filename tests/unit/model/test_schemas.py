"""Texts of a query or a row, read by the type they are for."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec
import pytest

from headrace.model.jsonschema import coerce, coerce_row


class Search(msgspec.Struct):
    """A query."""

    q: str
    limit: int = 10
    near: float | None = None
    exact: bool = False
    tags: list[int] = []


def test_a_querys_texts_become_what_the_type_says() -> None:
    texts = {
        "q": ["7"],
        "limit": ["5"],
        "near": ["1.5"],
        "exact": ["true"],
        "tags": ["1", "2"],
        "else": ["x"],
    }
    assert coerce(msgspec.json.schema(Search), texts) == {
        "q": "7",
        "limit": 5,
        "near": 1.5,
        "exact": True,
        "tags": [1, 2],
        "else": "x",
    }


def test_a_text_that_is_no_number_stays_one() -> None:
    found = coerce(msgspec.json.schema(Search), {"q": ["a"], "limit": ["5x"]})
    assert found["limit"] == "5x"


class Sale(msgspec.Struct):
    item: str
    count: int
    price: float | None
    tags: list[str]
    paid: bool = False
    code: int | str = 0
    note: str | None = None
    floor: int = 7


def test_a_row_of_texts_becomes_what_its_type_says() -> None:
    row = {
        "item": "12",
        "count": "3",
        "price": "1.5",
        "tags": '["a", "b"]',
        "paid": "yes",
        "code": "5",
        "note": "",
        "floor": "2",
        "more": "9",
    }
    assert coerce_row(msgspec.json.schema(Sale), row) == {
        "item": "12",
        "count": 3,
        "price": 1.5,
        "tags": ["a", "b"],
        "paid": True,
        "code": "5",
        "note": "",
        "floor": 2,
        "more": "9",
    }


def test_an_empty_field_is_null_left_out_or_as_it_is() -> None:
    row = dict.fromkeys(("item", "count", "price", "tags", "paid", "floor"), "")
    assert coerce_row(msgspec.json.schema(Sale), row) == {
        "item": "",
        "count": "",
        "price": None,
        "tags": "",
    }


def test_what_is_not_of_its_type_stays_a_text() -> None:
    row = {"item": "x", "count": "three", "price": "NA", "tags": "[broken", "paid": "maybe"}
    assert coerce_row(msgspec.json.schema(Sale), row) == row
    assert coerce_row({"type": "object"}, {"a": "1"}) == {"a": "1"}


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Choices(msgspec.Struct):
    """Values out of a few."""

    size: Size = Size.SMALL
    level: Literal[1, 2] = 1
    sizes: list[Size] = []
    maybe: Literal[3] | None = None
    mixed: Literal["1", 2] = 2
    switch: bool | Literal[7] = False


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("size", ["2"], 2),
        ("size", ["x"], "x"),
        ("level", ["1"], 1),
        ("sizes", ["1", "2"], [1, 2]),
        ("maybe", ["3"], 3),
        ("maybe", [""], None),
        ("mixed", ["1"], "1"),
        ("mixed", ["2"], 2),
        ("switch", ["true"], True),
        ("switch", ["7"], 7),
    ],
)
def test_values_out_of_a_few_are_of_their_types(name: str, texts: list[str], value: Any) -> None:
    assert coerce(msgspec.json.schema(Choices), {name: texts}) == {name: value}
    if len(texts) == 1 and name not in {"mixed", "sizes"} and texts != ["x"]:
        row = coerce_row(msgspec.json.schema(Choices), {name: texts[0]})
        assert row == {name: value}
