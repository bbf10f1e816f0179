"""The parts of a partition worker are below it: none of them is given a way to call it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOM = Path(__file__).parents[2] / "src" / "headrace" / "delivery" / "partition"


def classes() -> list[ast.ClassDef]:
    return [
        node
        for file in ROOM.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    ]


def test_no_part_is_given_a_method_of_its_owner() -> None:
    found: list[str] = []
    for owner in classes():
        methods = {
            each.name
            for each in owner.body
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for method in owner.body:
            if not isinstance(method, ast.FunctionDef) or method.name != "__init__":
                continue
            for call in (each for each in ast.walk(method) if isinstance(each, ast.Call)):
                given = (*call.args, *(each.value for each in call.keywords))
                found += [
                    f"{owner.name} gives away {ast.unparse(each)}"
                    for each in given
                    if isinstance(each, ast.Attribute) and each.attr in methods
                ]
    assert found == []


def test_the_scheduler_only_decides() -> None:
    tree = ast.parse((ROOM / "scheduler.py").read_text())
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)] == []
