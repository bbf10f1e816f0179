"""Each package tells the kinds of outcomes apart in one function at most.

A new kind of outcome is then judged in these functions, which a type checker names where they are a
`match` without `case _`; no `else` elsewhere takes it for a failure.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "headrace"
KINDS = {"Returned", "Crashed", "TimedOut"}
PLACES = {
    "delivery": "delivery/partition/settle.py: settle",
    "model": "model/redaction.py: blotted",
    "simulation": "simulation/run.py: _ended",
    "telemetry": "telemetry/history.py: _end_of",
    "testing": "testing/deliveries.py: fate_of",
}
"""The function of each package that does, where one does."""


def places_in(tree: ast.AST, function: str = "") -> Iterator[str]:
    """The functions that ask of which kind an outcome is."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if _asks_for_a_kind(node):
            yield inside
        yield from places_in(node, inside)


def _asks_for_a_kind(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
            return _names_a_kind(kinds)
        case ast.Compare(comparators=compared):
            return any(isinstance(each, ast.Name) and each.id in KINDS for each in compared)
        case ast.MatchClass(cls=kind):
            return _names_a_kind(kind)
        case _:
            return False


def _names_a_kind(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id in KINDS for node in ast.walk(tree))


def test_each_package_tells_outcomes_apart_in_one_function() -> None:
    found = {
        f"{file.relative_to(SOURCE)}: {function}"
        for file in SOURCE.rglob("*.py")
        for function in places_in(ast.parse(file.read_text()))
    }
    assert found == set(PLACES.values())
    assert {place.partition("/")[0] for place in found} == PLACES.keys()


@pytest.mark.parametrize(
    "asked",
    [
        "isinstance(outcome, Returned)",
        "isinstance(outcome, Crashed | TimedOut)",
        "type(outcome) is Returned",
        "type(outcome) is not TimedOut",
    ],
)
def test_a_place_is_found(asked: str) -> None:
    assert list(places_in(ast.parse(f"def judge(outcome):\n    return {asked}"))) == ["judge"]


def test_a_pattern_is_found() -> None:
    source = "def judge(outcome):\n    match outcome:\n        case Returned(error=None):\n            return 1"
    assert list(places_in(ast.parse(source))) == ["judge"]
