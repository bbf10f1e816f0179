"""Values held against the JSON Schema of a type, and the schemas against the reference implementation."""

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
from headrace.model.errors import Misuse
from headrace.model.jsonschema import Mismatch
from headrace.patterns.schema_validation import MAX_MATCHED, MAX_STEPS, Checker, places_of


def check(schema: dict[str, Any], value: Any, raw: bytes = b"") -> None:
    Checker(schema).check(value, raw)


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


def test_an_unknown_tag_is_reported_by_its_own_place() -> None:
    schema = msgspec.json.schema(Order)
    with pytest.raises(Mismatch, match="`/state/type`: must be one of 'open', 'paid'"):
        check(schema, {"lines": [{"item": "tea", "price": 1}], "state": {"type": "lost"}})


def test_numbers_and_truth_are_what_the_functions_take_them_for() -> None:
    """Python holds `True == 1 == 1.0`, JSON Schema `1 == 1.0`; the functions do neither."""
    schema = msgspec.json.schema(tuple[Literal[1], int, float, int | float])
    check(schema, [1, 2, 3, 1.0], b"[1, 2, 3, 1.0]")
    for raw, path in (
        (b"[true, 2, 3, 4]", "/0"),
        (b"[1.0, 2, 3, 4]", "/0"),
        (b"[1, 2.0, 3, 4]", "/1"),
        (b"[1, 2e0, 3, 4]", "/1"),
        (b"[1, false, 3, 4]", "/1"),
        (b"[1, 2, true, 4]", "/2"),
    ):
        with pytest.raises(Mismatch) as caught:
            check(schema, msgspec.json.decode(raw), raw)
        assert caught.value.path == path
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(raw, type=tuple[Literal[1], int, float, int | float])


def test_names_are_held_against_their_expressions() -> None:
    check({"propertyNames": {"pattern": "^[a-z]+$"}}, {"a": 1})
    with pytest.raises(Mismatch, match=r"`/x`: has a name that must match `\^\[a-z\]\+\$`"):
        check({"properties": {"x": {"propertyNames": {"pattern": "^[a-z]+$"}}}}, {"x": {"B": 1}})
    named = {"patternProperties": {r"^n_": {"type": "integer"}}, "additionalProperties": False}
    check(named, {"n_a": 1})
    for wrong, path in (({"n_a": "1"}, "/n_a"), ({"other": 1}, "/other")):
        with pytest.raises(Mismatch) as caught:
            check(named, wrong)
        assert caught.value.path == path


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"^\w+$", "Zoë"),
        (r"^[\w-]+$", "Zoë-1"),
        (r"^\W$", "!"),
        (r"^\d$", "٣"),
        (r"\Aa\Z", "a"),
        (r"^[]a]+$", "]a"),
        (r"^[^]a]$", "b"),
        (r"^(?P<x>a)$", "a"),
        (r"^\\w$", r"\w"),
        (r"^(?i:A)$", "a"),
        (r"^a\.b$", "a.b"),
        ("^[a[]$", "["),
    ],
)
def test_an_expression_means_what_it_means_to_python(expression: str, text: str) -> None:
    of = Annotated[str, msgspec.Meta(pattern=expression)]
    assert msgspec.convert(text, of) == text
    check(msgspec.json.schema(of), text)
    with pytest.raises(Mismatch, match="must match"):
        check(msgspec.json.schema(of), "\n\n")


@pytest.mark.parametrize("expression", ["(?=a)b", "(?<!a)b", r"(a)\1", "(?:a{1000}){1000}", "["])
def test_an_expression_that_cannot_run_in_linear_time_is_refused(expression: str) -> None:
    schemas: list[dict[str, Any]] = [
        {"pattern": expression},
        {"patternProperties": {expression: {}}},
    ]
    for schema in schemas:
        with pytest.raises(Misuse, match=r"/properties/x.*linear") as caught:
            Checker({"properties": {"x": schema}})
        assert f"`{expression}`" in str(caught.value)


def test_a_text_beyond_what_is_matched_is_refused() -> None:
    schema = {"type": "string", "pattern": "^a*$"}
    check(schema, "a" * MAX_MATCHED)
    with pytest.raises(Mismatch, match="at most 32768"):
        check(schema, "a" * (MAX_MATCHED + 1))


@pytest.mark.parametrize(
    ("expression", "places"),
    [
        ("", 1),
        ("abc", 3),
        ("[]a]b", 2),
        ("(ab){3}", 6),
        ("(?:a|bc){2,5}x*", 16),
        (r"\d{4}-\d{2}", 7),
        (r"^[\w-]{1,2048}$", 1),
        ("^a[a-z]{0,2047}$", 201),
        ("a*[a-z]{100}", 505),
        (r"\bab\b", 120),
        ("(a|b)*a(a|b){100}c", 1020),
        (r"^(\\b|c)$", 3),
    ],
)
def test_an_expressions_places_are_counted(expression: str, places: int) -> None:
    assert places_of(expression) == places


@pytest.mark.parametrize(
    ("expression", "text"), [(r"^\<a\>$", "<a>"), (r"^[\<\>]+$", "<>"), (r"^a\\<$", "a\\<")]
)
def test_an_escaped_sign_is_the_sign_itself_as_to_python(expression: str, text: str) -> None:
    check({"type": "string", "pattern": expression}, text)
    with pytest.raises(Mismatch):
        check({"type": "string", "pattern": expression}, "a")


def test_a_text_is_matched_as_far_as_its_expression_allows() -> None:
    expression = "^(a[ab]*){1,100}$"
    most = MAX_STEPS // places_of(expression)
    check({"type": "string", "pattern": expression}, "a" * most)
    with pytest.raises(Mismatch, match=f"at most {most}"):
        check({"type": "string", "pattern": expression}, "a" * (most + 1))
    check({"type": "string", "pattern": expression, "maxLength": most}, "a" * most)
    with pytest.raises(Misuse, match=f"allow at most {most:,} characters"):
        check({"type": "string", "pattern": expression, "maxLength": most + 1}, "")


def test_a_long_list_of_which_every_choice_is_wrong_is_refused_at_the_first() -> None:
    schema = msgspec.json.schema(list[int] | dict[str, int] | None)
    with pytest.raises(Mismatch) as caught:
        check(schema, ["x"] * 100_000)
    assert caught.value.path == "/0"


def test_formats_that_are_not_ours_forbid_nothing() -> None:
    check({"type": "string", "format": "email"}, "nobody")
    check({"type": "object", "properties": {"format": {"type": "string"}}}, {"format": "x"})
