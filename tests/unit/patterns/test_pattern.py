"""Patterns: our own cases, and where they are at hand the verdicts recorded on the real service."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Invalid
from headrace.patterns.pattern import compile_pattern, flatten, why

ORDER = {
    "source": "shop.eu",
    "detail": {
        "state": "paid",
        "total": 12.5,
        "ip": "10.0.0.7",
        "tags": ["new", "VIP"],
        "note": None,
    },
}
ITEMS = {"items": [{"sku": "a", "left": 0}, {"sku": "b", "left": 5}]}


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"source": ["shop.eu"]}, ORDER, True),
        ({"source": ["shop.us"]}, ORDER, False),
        ({"source": [{"prefix": "shop."}], "detail": {"state": ["paid", "sent"]}}, ORDER, True),
        ({"detail": {"state": [{"prefix": {"equals-ignore-case": "PA"}}]}}, ORDER, True),
        ({"detail": {"state": [{"suffix": "id"}]}}, ORDER, True),
        ({"detail": {"state": [{"equals-ignore-case": "PAID"}]}}, ORDER, True),
        ({"detail": {"state": [{"anything-but": ["open", "paid"]}]}}, ORDER, False),
        ({"detail": {"state": [{"anything-but": {"prefix": "op"}}]}}, ORDER, True),
        ({"detail": {"total": [{"numeric": [">", 10, "<=", 12.5]}]}}, ORDER, True),
        ({"detail": {"total": [{"numeric": ["<", 12.5]}]}}, ORDER, False),
        ({"detail": {"ip": [{"cidr": "10.0.0.0/29"}]}}, ORDER, True),
        ({"detail": {"ip": [{"cidr": "10.0.0.8/29"}]}}, ORDER, False),
        ({"detail": {"tags": ["VIP"]}}, ORDER, True),
        ({"detail": {"note": [None]}}, ORDER, True),
        ({"detail": {"gone": [{"exists": False}]}}, ORDER, True),
        ({"detail": {"state": [{"exists": False}]}}, ORDER, False),
        ({"detail": {"state": [{"wildcard": "p*d"}]}}, ORDER, True),
        ({"$or": [{"source": ["x"]}, {"detail": {"state": ["paid"]}}]}, ORDER, True),
        ({"items": {"sku": ["a"], "left": [{"numeric": [">", 0]}]}}, ITEMS, False),
        ({"items": {"sku": ["b"], "left": [{"numeric": [">", 0]}]}}, ITEMS, True),
        ({"source": ["shop.eu"]}, ["shop.eu"], False),
    ],
)
def test_a_pattern_says_which_events_it_is_about(
    pattern: dict[str, Any], event: Any, expected: bool
) -> None:
    assert compile_pattern(pattern).matches(event) is expected


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("text", "a pattern is a JSON object"),
        ({"a": "b"}, "`a` must be an object or an array, not a string"),
        ({"a": []}, "empty arrays"),
        ({"a": [{"prefix": 1}]}, "`prefix` takes a string"),
        ({"a": [{"NUMERIC": ["=", 1]}]}, "there is no test `NUMERIC`"),
        ({"a": [{"numeric": 1}]}, "must be an array"),
        ({"a": [{"numeric": [">", 5, "<", 1]}]}, "holds nothing"),
        ({"a": [{"cidr": "10.0.0.0"}]}, "one '/' is required"),
        ({"a": [{"wildcard": "a**b"}]}, "consecutive wildcard"),
        ({"a": [{"anything-but": {"suffix": ""}}]}, "an empty suffix"),
    ],
)
def test_a_pattern_that_cannot_hold_is_refused_by_name(pattern: Any, fault: str) -> None:
    with pytest.raises(Invalid, match=fault.replace("(", r"\(")):
        compile_pattern(pattern)


def _recorded() -> dict[str, list[dict[str, Any]]]:
    folder = os.environ.get("RECORDED_CASES", "")
    path = Path(folder) / "events" / "pattern_cases.json"
    if not path.is_file():
        pytest.skip("RECORDED_CASES names no folder of recorded cases")
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
    return found


def test_recorded_verdicts_are_met() -> None:
    wrong: list[str] = []
    for group, cases in _recorded().items():
        for case in cases:
            expected = case.get("matches", "error")
            name = case.get("id", case["source"])
            if expected == "error" and "Parameter Event" in str(case.get("error")):
                continue  # the event is refused there, which is not the pattern's to say
            try:
                pattern = case["pattern"] if "pattern" in case else json.loads(case["pattern_text"])
                event = (
                    case["event"] if "event" in case else json.loads(case.get("event_text", "{}"))
                )
                found: object = compile_pattern(pattern).matches(event)
            except (Invalid, json.JSONDecodeError):
                found = "error"
            if found != expected:
                wrong.append(f"{group}: {name}: {found} instead of {expected}")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize(
    ("pattern", "event", "reasons"),
    [
        (
            {"detail": {"total": [{"numeric": [">", 20]}], "state": ["paid"]}},
            ORDER,
            ['`detail.total` is 12.5, but must be one of [{"numeric":[">",20]}]'],
        ),
        (
            {"detail": {"gone": ["x"], "state": ["open"]}},
            ORDER,
            [
                '`detail.gone` is absent, but must be one of ["x"]',
                '`detail.state` is "paid", but must be one of ["open"]',
            ],
        ),
        (
            {"detail": {"tags": ["old"]}},
            ORDER,
            ['`detail.tags` is "new", "VIP", but must be one of ["old"]'],
        ),
        (
            {"items": {"sku": ["a"], "left": [5]}},
            ITEMS,
            ["`items.sku`, `items.left` each hold, but not within one element of the same array"],
        ),
        (
            {"$or": [{"source": ["x"]}, {"source": ["y"]}]},
            ORDER,
            [
                '`source` is "shop.eu", but must be one of ["x"]',
                '`source` is "shop.eu", but must be one of ["y"]',
            ],
        ),
        (
            {"detail": {"n": [9]}},
            {"detail": {"n": list(range(8))}},
            ["`detail.n` is 0, 1, 2, 3, 4 and 3 more, but must be one of [9]"],
        ),
        ({"a": [1]}, [1], ["the event is an array; only objects can match"]),
    ],
)
def test_a_pattern_that_does_not_match_says_why(
    pattern: dict[str, Any], event: Any, reasons: list[str]
) -> None:
    verdict = why(pattern, event)
    assert not verdict.matches
    assert list(verdict.reasons) == reasons


def test_a_pattern_that_matches_gives_no_reasons() -> None:
    assert why({"source": ["shop.eu"]}, ORDER) == (True, ())


@given(
    st.text("ab*", max_size=8).filter(lambda text: "**" not in text), st.text("ab\n", max_size=10)
)
def test_a_wildcard_matches_as_trying_everything_would(glob: str, text: str) -> None:
    def fits(pieces: str, rest: str) -> bool:
        if not pieces:
            return not rest
        if pieces[0] == "*":
            return any(fits(pieces[1:], rest[at:]) for at in range(len(rest) + 1))
        return rest[:1] == pieces[0] and fits(pieces[1:], rest[1:])

    assert compile_pattern({"a": [{"wildcard": glob}]}).matches({"a": text}) is fits(glob, text)


def test_a_text_that_nearly_fits_a_wildcard_costs_no_more_than_its_length() -> None:
    nearly = compile_pattern({"a": [{"wildcard": "*a*a*a*a*a*a*b"}]})
    assert not nearly.matches({"a": "a" * 20_000})
    assert nearly.matches({"a": "a" * 20_000 + "b"})


_ELEMENTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 1), max_size=3)
_ARRAYS = st.recursive(
    st.lists(_ELEMENTS, max_size=3),
    lambda inner: st.lists(
        inner | st.dictionaries(st.sampled_from("abc"), inner | st.integers(0, 1), max_size=2),
        max_size=2,
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["x", "y", "x.a"]), _ARRAYS, max_size=3), st.data())
def test_values_are_of_the_same_elements_as_trying_every_choice_would_have_them(
    event: dict[str, Any], data: st.DataObject
) -> None:
    fields = flatten(event)
    paths = data.draw(
        st.lists(st.sampled_from(sorted(fields) or ["none"]), unique=True, max_size=4)
    )
    pattern: dict[str, Any] = {path: [1] for path in paths} or {"none": [1]}
    choices = [[v.places for v in fields.get(path, []) if v.value == 1] for path in pattern]
    expected = any(
        all(
            {array: index for places in chosen for array, index in places}[array] == index
            for places in chosen
            for array, index in places
        )
        for chosen in itertools.product(*choices)
    )
    assert compile_pattern(pattern).matches(event) is expected


def test_an_event_with_long_arrays_costs_no_more_than_their_lengths() -> None:
    long = 20_000
    pattern = compile_pattern({"x": {"a": [1]}, "y": {"b": [1]}, "z": {"c": [1], "d": [2]}})
    event = {"x": [{"a": 1}] * long, "y": [{"b": 1}] * long, "z": [{"c": 1}, {"d": 2}]}
    assert not pattern.matches(event)
    assert pattern.matches(event | {"z": [{"c": 1}, {"c": 1, "d": 2}]})
    separate = [{"a": 1, "b": 1}] * long + [{"c": 3}]
    assert not compile_pattern({"x": {"a": [1], "b": [1], "c": [3]}}).matches({"x": separate})
