"""Many rules at once judge as each pattern does, and do not pay for rules that cannot be meant."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Invalid, Unknown
from headrace.triggers.filters import compile_pattern
from headrace.triggers.rules import RuleIndex

MANY = 3_000

TEXTS = st.sampled_from(["", "a", "ab", "abc", "B", "aB.c", "xyzabcxyz", "10.0.0.7", "::1", "1"])
SCALARS = st.one_of(TEXTS, st.integers(-3, 3), st.sampled_from([0.5, 1.0, True, False, None]))
NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c"])
EVENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.dictionaries(NAMES, inner, max_size=3), st.lists(inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)
WILDCARDS = st.sampled_from(["*", "a*", "*c", "a*c", "*b*", "x*abc*z", r"\*", "*yzab*", "abc"])
TESTS = st.one_of(
    SCALARS,
    st.builds(lambda text: {"prefix": text}, TEXTS),
    st.builds(lambda text: {"suffix": text}, TEXTS),
    st.builds(lambda text: {"prefix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"suffix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"equals-ignore-case": text}, TEXTS),
    st.builds(lambda text: {"wildcard": text}, WILDCARDS),
    st.builds(lambda many: {"anything-but": many}, st.lists(TEXTS, min_size=1, max_size=2)),
    st.builds(lambda text: {"anything-but": {"wildcard": text}}, WILDCARDS),
    st.builds(lambda wanted: {"exists": wanted}, st.booleans()),
    st.builds(
        lambda sign, bound: {"numeric": [sign, bound]},
        st.sampled_from(["<", "<=", "=", ">", ">="]),
        st.integers(-3, 3),
    ),
    st.builds(
        lambda low, high: {"numeric": [low, -1, high, 2]},
        st.sampled_from([">", ">="]),
        st.sampled_from(["<", "<="]),
    ),
    st.sampled_from([{"cidr": "10.0.0.0/29"}, {"cidr": "10.0.0.8/29"}, {"cidr": "::/64"}]),
)
LEAVES = st.lists(TESTS, min_size=1, max_size=2)
FLAT = st.dictionaries(
    NAMES,
    st.one_of(LEAVES, st.dictionaries(NAMES, LEAVES, min_size=1, max_size=2)),
    min_size=1,
    max_size=3,
)
PATTERNS = st.one_of(
    FLAT,
    st.builds(
        lambda left, right, also: {**also, "$or": [left, right]}, FLAT, FLAT, FLAT
    ),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=12), st.lists(EVENTS, min_size=1, max_size=4))
def test_the_index_names_exactly_the_patterns_that_match(
    patterns: list[dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    index = RuleIndex()
    for number, pattern in enumerate(patterns):
        index.add(str(number), pattern)
    for event in events:
        wanted = {str(n) for n, one in enumerate(patterns) if compile_pattern(one).matches(event)}
        found = index.match(event)
        assert set(found) == wanted
        assert len(found) == len(wanted)


KINDS: list[tuple[str, Any, Any]] = [
    ("exact", lambda n: [f"shop-{n:05}"], "shop-00007"),
    ("prefix", lambda n: [{"prefix": f"shop-{n:05}-"}], "shop-00007-eu"),
    ("suffix", lambda n: [{"suffix": f"-{n:05}.png"}], "face-00007.png"),
    ("ignoring case", lambda n: [{"equals-ignore-case": f"Shop-{n:05}"}], "SHOP-00007"),
    ("wildcard", lambda n: [{"wildcard": f"arn:*:{n:05}:*:end"}], "arn:x:00007:y:end"),
    ("numeric", lambda n: [{"numeric": [">=", n * 10, "<", n * 10 + 10]}], 75),
    ("cidr", lambda n: [{"cidr": f"10.{n // 250}.{n % 250}.0/24"}], "10.0.7.9"),
]


@pytest.mark.parametrize(("kind", "wanted", "value"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_rules_that_cannot_match_cost_nothing(kind: str, wanted: Any, value: Any) -> None:
    event = {"source": "shop", "detail": {"x": value, "y": 1, "tags": ["a", "b"]}}
    steps = {}
    for numbers in (range(30), range(MANY)):
        index = RuleIndex()
        for number in numbers:
            index.add(str(number), {"source": ["shop"], "detail": {"x": wanted(number)}})
        assert index.match(event) == ["7"]
        steps[len(numbers)] = _steps(lambda index=index: index.match(event))
    assert steps[MANY] <= 1.2 * steps[30]


def _steps(work: Any) -> int:
    """How many lines of Python it takes."""
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_rules_of_one_source_and_many_kinds_share_what_they_have_in_common() -> None:
    index = RuleIndex()
    for source in range(50):
        for kind in range(50):
            pattern = {"source": [f"s{source}"], "detail-type": [f"k{kind}"], "a": ["x"]}
            index.add(f"{source}/{kind}", pattern)
    event = {"source": "s3", "detail-type": "k4", "a": "x"}
    assert index.match(event) == ["3/4"]
    assert _steps(lambda: index.match(event)) < 250


def test_a_rule_can_be_replaced_and_removed() -> None:
    index = RuleIndex()
    index.add("one", {"a": ["x"]})
    index.add("two", {"a": ["x"]})
    assert sorted(index.match({"a": "x"})) == ["one", "two"]
    index.add("one", {"a": ["y"]})
    index.remove("two")
    assert index.match({"a": "x"}) == []
    assert index.match({"a": "y"}) == ["one"]
    assert len(index) == 1
    with pytest.raises(Unknown, match="no rule `two`"):
        index.remove("two")


def test_a_pattern_that_is_none_changes_nothing() -> None:
    index = RuleIndex()
    index.add("one", {"a": ["x"]})
    with pytest.raises(Invalid, match="must be an object or an array"):
        index.add("one", {"a": "x"})
    assert index.match({"a": "x"}) == ["one"]


def test_an_event_that_is_no_object_is_nobodys() -> None:
    index = RuleIndex()
    index.add("one", {"a": [{"exists": False}]})
    assert index.match(["a"]) == []
    assert index.match({}) == ["one"]


def test_a_nameless_member_is_seen_through_as_a_pattern_sees_through_it() -> None:
    index = RuleIndex()
    index.add("one", {"x": [1]})
    event = {"": {"x": 1}}
    assert compile_pattern({"x": [1]}).matches(event)
    assert index.match(event) == ["one"]
