"""Many rules at once judge as each pattern does, and do not pay for rules that cannot be meant."""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Invalid, Unknown
from headrace.patterns.pattern import all_hold, compile_pattern, flatten
from headrace.patterns.rule_index import RuleIndex

MANY = 400

TEXTS = [
    "",
    "a",
    "ab",
    "abc",
    "B",
    "aB.c",
    "xyzabcxyz",
    "10.0.0.7",
    "::1",
    "1",
    "a/b/c",
    "a//c",
    "b/c/b",
]
SCALARS = [*TEXTS, -3, -2, -1, 0, 1, 2, 3, 0.5, 1.0, True, False, None]
NAMES = ["a", "b", "c", "a.b"]
WILDCARDS = ["*", "a*", "*c", "a*c", "*b*", "x*abc*z", r"\*", "*yzab*", "abc", "10.*.0.7"]
WILDCARDS += ["a/*", "*/c", "a/*/c", "*/b/*", "*/b", "b/*", "*::*", "*:1", "a/b/c", "*.0.*", "*.c"]


def any_event(random: Random, depth: int = 0) -> dict[str, Any]:
    return {name: any_value(random, depth) for name in random.sample(NAMES, random.randint(0, 4))}


def any_value(random: Random, depth: int) -> Any:
    kind = random.random()
    if depth < 3 and kind < 0.25:
        return any_event(random, depth + 1)
    if depth < 3 and kind < 0.45:
        return [any_value(random, depth + 1) for _ in range(random.randint(0, 3))]
    return random.choice(SCALARS)


def any_test(random: Random) -> Any:
    text, wildcard = random.choice(TEXTS), random.choice(WILDCARDS)
    return random.choice(
        [
            random.choice(SCALARS),
            random.choice(SCALARS),
            {"prefix": text},
            {"suffix": text},
            {"prefix": {"equals-ignore-case": text}},
            {"suffix": {"equals-ignore-case": text}},
            {"equals-ignore-case": text},
            {"wildcard": wildcard},
            {"anything-but": random.sample(TEXTS, 2)},
            {"anything-but": [random.randint(-3, 3)]},
            {"anything-but": {"wildcard": wildcard}},
            {"exists": random.random() < 0.5},
            {"numeric": [random.choice(["<", "<=", "=", ">", ">="]), random.randint(-3, 3)]},
            {"numeric": [random.choice([">", ">="]), -1, random.choice(["<", "<="]), 2]},
            {"cidr": random.choice(["10.0.0.0/29", "10.0.0.8/29", "::/64"])},
        ]
    )


def any_leaf(random: Random) -> list[Any]:
    return [any_test(random) for _ in range(random.randint(1, 2))]


def any_pattern(random: Random) -> dict[str, Any]:
    pattern: dict[str, Any] = {}
    for name in random.sample(NAMES, random.randint(1, 3)):
        inner = random.sample(NAMES, random.randint(1, 2))
        nested = {each: any_leaf(random) for each in inner}
        pattern[name] = nested if random.random() < 0.3 else any_leaf(random)
    if random.random() < 0.2:
        pattern["$or"] = [any_pattern(random), any_pattern(random)]
    return pattern


@given(st.integers(0, 1 << 64))
def test_the_index_names_exactly_the_patterns_that_match(seed: int) -> None:
    random = Random(seed)
    patterns = [any_pattern(random) for _ in range(random.choice([1, 12, 60]))]
    compiled = [compile_pattern(pattern) for pattern in patterns]
    index = RuleIndex()
    for number, pattern in enumerate(patterns):
        index.add(str(number), pattern)
    for _ in range(40):
        event = any_event(random)
        fields = flatten(event)
        wanted = {
            str(n)
            for n, one in enumerate(compiled)
            if any(all_hold(leaves, fields) for leaves in one.alternatives)
        }
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
    """Count the executed lines of Python."""
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


def test_what_has_to_be_asked_is_asked_only_for_events_that_come_so_far() -> None:
    index = RuleIndex()
    for number in range(MANY):
        state = [{"anything-but": [f"s{number}"]}]
        index.add(str(number), {"source": ["shop"], "state": state})
    assert len(index.match({"source": "shop", "state": "s7"})) == MANY - 1
    assert index.match({"source": "bank", "state": "s7"}) == []
    assert _steps(lambda: index.match({"source": "bank", "state": "s7"})) < 100


def test_what_all_rules_ask_alike_is_asked_of_the_few_that_are_left() -> None:
    index = RuleIndex()
    for number in range(MANY):
        index.add(str(number), {"source": ["shop"], "key": [{"prefix": f"{number:05}/"}]})
        index.add(
            f"gone {number}", {"source": ["shop"], "other": [{"exists": False}], "x": [number]}
        )
    both = index.match({"source": "shop", "key": "00007/a", "x": 8})
    assert sorted(both) == ["7", "gone 8"]
    assert index.match({"source": "shop", "key": "00007/a", "x": 8, "other": 1}) == ["7"]
    assert index.match({"source": "bank", "key": "00007/a", "x": 8}) == []


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


def test_among_many_rules_values_of_different_elements_do_not_match_together() -> None:
    index = RuleIndex()
    for number in range(20):
        index.add(str(number), {"items": {"sku": [f"s{number}"], "left": [number]}})
    assert index.match({"items": [{"sku": "s1", "left": 2}, {"sku": "s2", "left": 1}]}) == []
    assert index.match({"items": [{"sku": "s1", "left": 0}, {"sku": "s2", "left": 2}]}) == ["2"]
    alike = RuleIndex()
    for number in range(20):
        alike.add(str(number), {"items": {"sku": ["s1"], "left": [1]}})
    assert alike.match({"items": [{"sku": "s1", "left": 2}, {"sku": "s2", "left": 1}]}) == []
    assert len(alike.match({"items": [{"sku": "s1", "left": 1}, {"sku": "s2"}]})) == 20


def test_a_piece_of_a_wildcard_may_be_the_end_or_the_beginning_of_a_word() -> None:
    index = RuleIndex()
    for number in range(20):
        index.add(f"ends {number}", {"a": [{"wildcard": f"*b{number}/*"}]})
        index.add(f"begins {number}", {"a": [{"wildcard": f"*/c{number}x*"}]})
        index.add(f"whole {number}", {"a": [{"wildcard": f"*/d{number}/*"}]})
    assert index.match({"a": "ab7/x"}) == ["ends 7"]
    assert index.match({"a": "0/c8xyz"}) == ["begins 8"]
    assert index.match({"a": "0/d9/1"}) == ["whole 9"]
    assert index.match({"a": "0/d99/1"}) == []


@pytest.mark.parametrize("delimiter", ["/", ":", "."])
def test_a_piece_of_a_wildcard_may_be_a_whole_part_or_some_of_one(delimiter: str) -> None:
    index = RuleIndex()
    for number in range(20):
        for name, wildcard in {
            "inner": f"*|in-{number}|*",
            "first": f"at-{number}|*",
            "last": f"*|to-{number}",
            "some": f"*|so{number}*",
            "both": f"x-{number}|y-{number}",
        }.items():
            index.add(f"{name} {number}", {"a": [{"wildcard": wildcard.replace("|", delimiter)}]})
    for text, met in {
        "0|in-7|0": ["inner 7"],
        "in-7|0": [],
        "0|in-7": [],
        "0|in-77|0": [],
        "|in-7|": ["inner 7"],
        "at-7|": ["first 7"],
        "at-7": [],
        "0|at-7|": [],
        "|to-7": ["last 7"],
        "to-7": [],
        "to-7|0": [],
        "0|so7xyz": ["some 7"],
        "x-7|y-7": ["both 7"],
        "x-7|y-7|": [],
        "at-7|in-8|in-8|to-9": ["first 7", "inner 8", "last 9"],
    }.items():
        assert sorted(index.match({"a": text.replace("|", delimiter)})) == met


def test_an_array_that_one_rule_asks_for_does_not_make_the_others_dear() -> None:
    event = {"source": "shop", "tags": ["a", "b"], "detail": {"x": "x7", "y": 1}}
    steps = {}
    for tagged in (False, True):
        index = RuleIndex()
        for number in range(MANY):
            index.add(str(number), {"source": ["shop"], "detail": {"x": [f"x{number}"], "y": [1]}})
        if tagged:
            index.add("tagged", {"tags": ["c"]})
        assert index.match(event) == ["7"]
        steps[tagged] = _steps(lambda index=index: index.match(event))
    assert steps[True] <= 2.4 * steps[False]


def test_a_path_that_comes_twice_has_both_values() -> None:
    index = RuleIndex()
    for number in range(20):
        index.add(str(number), {"a": {"b": [number]}})
    assert sorted(index.match({"a": {"b": 1}, "a.b": 2})) == ["1", "2"]
