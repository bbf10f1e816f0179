"""The door's reading of JSON Schema, held against the reference implementation."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.codec import Coder
from headrace.model.schemas import Mismatch, check, coerce, coerce_row


class Line(msgspec.Struct):
    """One line of an order."""

    item: Annotated[str, msgspec.Meta(min_length=1, max_length=5, pattern="^[a-z]+$")]
    price: Annotated[float, msgspec.Meta(ge=0, lt=100)]
    count: Annotated[int, msgspec.Meta(gt=0, multiple_of=2)] = 2


class Paid(msgspec.Struct, tag="paid"):
    """Paid."""

    by: Literal["card", "cash"]


class Open(msgspec.Struct, tag="open", forbid_unknown_fields=True):
    """Not paid."""

    due: int | None = None


class Order(msgspec.Struct):
    """An order."""

    lines: Annotated[list[Line], msgspec.Meta(min_length=1)]
    state: Paid | Open
    notes: dict[str, str] = {}
    pair: tuple[int, str] | None = None


SCHEMAS = [
    msgspec.json.schema(of)
    for of in (Line, Order, list[Line], dict[str, int], int | str | None, tuple[int, bool], float)
]
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 105)
    | st.floats(-5, 105, allow_nan=False)
    | st.sampled_from(["", "tea", "card", "cash", "paid", "open", "toolong", "A"])
)
NAMES = ["item", "price", "count", "lines", "state", "notes", "pair", "type", "by", "due", "x"]
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)
LINES = st.fixed_dictionaries(
    {"item": ATOMS, "price": ATOMS}, optional={"count": ATOMS, "x": ATOMS}
)
ORDERS = st.fixed_dictionaries(
    {
        "lines": st.lists(LINES, max_size=2),
        "state": st.fixed_dictionaries(
            {"type": ATOMS}, optional={"by": ATOMS, "due": ATOMS, "x": ATOMS}
        ),
    },
    optional={"notes": st.dictionaries(st.sampled_from(NAMES), ATOMS, max_size=2), "pair": VALUES},
)


@given(st.sampled_from(SCHEMAS), VALUES | LINES | ORDERS | st.lists(LINES, max_size=2))
def test_what_the_reference_accepts_is_accepted_and_nothing_else(
    schema: dict[str, Any], value: Any
) -> None:
    right = jsonschema.Draft202012Validator(schema).is_valid(value)
    wrong = None
    try:
        check(schema, value)
    except Mismatch as error:
        wrong = error
    assert right is (wrong is None), wrong


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"lines": [], "state": {"type": "open"}}, "/lines"),
        ({"lines": [{"item": "tea", "price": "1"}], "state": {"type": "open"}}, "/lines/0/price"),
        ({"lines": [{"item": "tea", "price": 1}], "state": {"type": "paid"}}, "/state/by"),
        ({"lines": [{"item": "tea", "price": 1}]}, "/state"),
        ([], ""),
    ],
)
def test_a_mismatch_names_its_place(value: Any, path: str) -> None:
    with pytest.raises(Mismatch) as caught:
        check(msgspec.json.schema(Order), value)
    assert caught.value.path == path


class Search(msgspec.Struct):
    """A query."""

    q: str
    limit: int = 10
    near: float | None = None
    exact: bool = False
    tags: list[int] = []


def test_a_querys_texts_become_what_the_type_says() -> None:
    texts = {
        "q": ["7"], "limit": ["5"], "near": ["1.5"], "exact": ["true"], "tags": ["1", "2"],
        "else": ["x"],
    }  # fmt: skip
    assert coerce(msgspec.json.schema(Search), texts) == {
        "q": "7", "limit": 5, "near": 1.5, "exact": True, "tags": [1, 2], "else": "x",
    }  # fmt: skip


def test_a_text_that_is_no_number_stays_one_and_is_refused_by_the_check() -> None:
    found = coerce(msgspec.json.schema(Search), {"q": ["a"], "limit": ["5x"]})
    assert found["limit"] == "5x"
    with pytest.raises(Mismatch) as caught:
        check(msgspec.json.schema(Search), found)
    assert caught.value.path == "/limit"


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
        "item": "12", "count": "3", "price": "1.5", "tags": '["a", "b"]', "paid": "yes", "code": "5",
        "note": "", "floor": "2", "more": "9",
    }  # fmt: skip
    assert coerce_row(msgspec.json.schema(Sale), row) == {
        "item": "12", "count": 3, "price": 1.5, "tags": ["a", "b"], "paid": True, "code": "5",
        "note": "", "floor": 2, "more": "9",
    }  # fmt: skip


def test_an_empty_field_is_null_left_out_or_as_it_is() -> None:
    row = dict.fromkeys(("item", "count", "price", "tags", "paid", "floor"), "")
    assert coerce_row(msgspec.json.schema(Sale), row) == {
        "item": "", "count": "", "price": None, "tags": "",
    }  # fmt: skip


def test_what_is_not_of_its_type_stays_a_text() -> None:
    row = {"item": "x", "count": "three", "price": "NA", "tags": "[broken", "paid": "maybe"}
    assert coerce_row(msgspec.json.schema(Sale), row) == row
    assert coerce_row({"type": "object"}, {"a": "1"}) == {"a": "1"}


class Visit(msgspec.Struct):
    """Everything that is a text and more."""

    at: datetime.datetime
    day: datetime.date | None = None
    until: datetime.datetime | None = None
    clock: Annotated[datetime.time, msgspec.Meta(title="clock")] | None = None
    who: uuid.UUID | None = None
    paid: decimal.Decimal | None = None
    photo: bytes | None = None
    others: list[datetime.datetime] = []
    by_name: dict[str, Visit] = {}
    state: Paid | Open | None = None


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("at", "2026-01-31T12:00:00.5+01:00", "yesterday"),
        ("day", "2026-01-31", "2026-02-31"),
        ("until", "2026-01-31T12:00:00", "2026-01-31"),
        ("clock", "12:00:00", "noon"),
        ("who", "12345678-1234-5678-1234-567812345678", "me"),
        ("paid", "1.50", "much"),
        ("photo", "aGVsbG8=", "no!"),
    ],
)
def test_a_text_that_stands_for_something_is_refused_where_its_type_would_refuse_it(
    field: str, good: str, bad: str
) -> None:
    schema = Coder("json", Visit).schema()
    assert schema is not None
    whole = {"at": "2026-01-31T12:00:00Z"}
    check(schema, {**whole, field: good})
    msgspec.convert({**whole, field: good}, Visit)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**whole, field: bad}, Visit)
    for wrong, path in (
        ({**whole, field: bad}, f"/{field}"),
        ({**whole, "by_name": {"ann": {**whole, field: bad}}}, f"/by_name/ann/{field}"),
    ):
        with pytest.raises(Mismatch) as mismatch:
            check(schema, wrong)
        assert mismatch.value.path == path


def test_lists_of_times_are_looked_into() -> None:
    schema = Coder("json", Visit).schema()
    assert schema is not None
    whole: dict[str, Any] = {"at": "2026-01-31T12:00:00Z"}
    with pytest.raises(Mismatch, match="/others/1"):
        check(schema, {**whole, "others": ["2026-01-31T12:00:00Z", "then"]})


def test_a_tag_nobody_knows_is_told_by_its_own_place() -> None:
    schema = msgspec.json.schema(Order)
    with pytest.raises(Mismatch, match="`/state/type`: must be one of 'paid', 'open'"):
        check(schema, {"lines": [{"item": "tea", "price": 1}], "state": {"type": "lost"}})
