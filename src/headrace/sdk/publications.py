"""Streams that a handler's code publishes to, as far as its source names them.

In: a handler, and the streams its app knows. Out: their names, for the map. It reads
`context.publish(totals, ...)` in the source of the handler, and of the functions of its module that it
names; what is chosen while it runs is not seen. Nothing is run, and only files of functions that
publish are read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from headrace.sdk.stream import Stream

MAX_FUNCTIONS: Final = 64
"""Functions that are read for one handler, itself included."""
MAX_SOURCE_BYTES: Final = 4 << 20
PUBLISH: Final = "publish"


def published_in(handler: Callable[..., Any], known: Collection[str]) -> tuple[str, ...]:
    """The names of the streams that the handler's code publishes to, sorted.

    Args:
        handler: An author's function.
        known: The names of the streams that its app declares, its own and others'.
    """
    waiting: list[Any] = [_unwrapped(handler)]
    read: list[FunctionType] = []
    found: set[str] = set()
    for function in waiting:
        if not isinstance(function, FunctionType) or function in read:
            continue
        if len(read) == MAX_FUNCTIONS:
            break
        read.append(function)
        names = _names(function)
        mentioned = _mentioned(function.__code__)
        if PUBLISH in mentioned:
            found.update(name for name in _streams_in(function, names) if name in known)
        called = (_unwrapped(names.get(name)) for name in mentioned)
        waiting += [
            each for each in called if getattr(each, "__module__", "") == function.__module__
        ]
    return tuple(sorted(found))


def _unwrapped(function: Any) -> Any:
    for _ in range(MAX_FUNCTIONS):
        if not isinstance(function, FunctionType) or not hasattr(function, "__wrapped__"):
            break
        function = function.__wrapped__
    return function


def _mentioned(code: CodeType) -> set[str]:
    """The names in a function and in those within it."""
    found = {*code.co_names, *code.co_freevars}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= _mentioned(inner)
    return found


def _names(function: FunctionType) -> Mapping[str, Any]:
    """Meanings of the names in it, besides its own variables."""
    found = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _streams_in(function: FunctionType, names: Mapping[str, Any]) -> Iterator[str]:
    code = function.__code__
    tree = _tree(code.co_filename)
    for node in () if tree is None else ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and code.co_firstlineno == min(
            node.lineno, *(each.lineno for each in node.decorator_list), node.lineno
        ):
            for call in ast.walk(node):
                if isinstance(call, ast.Call):
                    yield from _streams_of(call, names)


@lru_cache(maxsize=16)
def _tree(file: str) -> ast.Module | None:
    try:
        source = Path(file).read_bytes()
        return ast.parse(source) if len(source) <= MAX_SOURCE_BYTES else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        # It was typed into a shell, say, or has changed under us.
        return None


def forget_sources() -> None:
    """Let go of what was read, which takes more memory than all that came of it."""
    _tree.cache_clear()


def _streams_of(call: ast.Call, names: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(call.func, ast.Attribute) or call.func.attr != PUBLISH:
        return
    said = call.args[:1] or [each.value for each in call.keywords if each.arg == "stream"]
    while said:
        node = said.pop()
        if isinstance(node, ast.IfExp):
            said += [node.body, node.orelse]
            continue
        meant = _meaning(node, names)
        if isinstance(meant, Stream):
            yield meant.name
        elif isinstance(meant, str):
            yield meant


def _meaning(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Value of an expression; None for what is known at run time only."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=inner, attr=name):
            module = _meaning(inner, names)
            return vars(module).get(name) if isinstance(module, ModuleType) else None
        case _:
            return None
