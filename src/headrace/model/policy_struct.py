"""Values that authors write by hand: policies, triggers, windows. Pure.

In: the arguments of `Retry(...)`, `Http(...)` and their like. A name that is unknown, an argument that is
missing and a value of another type are refused before the struct is made, with near names and the fix.
What is decoded does not pass here: the checks of a value's ranges are in its `__post_init__`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import msgspec

from headrace.model.errors import Misuse
from headrace.model.former_names import renamed
from headrace.model.near_names import near

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
    Any: "anything that JSON has",
}
_NUMBERS = frozenset((int, float))
_SEVERAL = (tuple, list, set, frozenset)
_MAX_INT = (1 << 63) - 1
"""What goes into a message between two processes."""


class CheckedArguments(msgspec.StructMeta):
    """Metaclass of `PolicyStruct`: checks the arguments of each that an author makes."""

    # Type checkers that see a `__call__` here look no further, at the fields.
    if not TYPE_CHECKING:

        def __call__(cls, *given: Any, **named: Any) -> Any:  # noqa: N805  # of a metaclass
            """Make one.

            Raises:
                Misuse: An argument is unknown, missing or of another type.
            """
            _check_arguments(cls, given, named)
            return super().__call__(*given, **named)


class PolicyStruct(msgspec.Struct, metaclass=CheckedArguments, frozen=True):
    """The base of policies, triggers and other values that are written as arguments."""


def default(value: Any) -> Any:
    """Default of a field that is declared under another type than it is given, as type checkers accept it."""
    return value


@functools.cache
def _signature(of: type[msgspec.Struct]) -> inspect.Signature:
    found: inspect.Signature = of.__signature__
    return found


def _check_arguments(
    of: type[msgspec.Struct], given: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    signature = _signature(of)
    try:
        arguments = signature.bind(*given, **named).arguments
    except TypeError as error:
        raise Misuse(_wrong_call(of.__name__, signature, given, named)) from error
    for name, value in arguments.items():
        wanted = _wanted(signature.parameters[name].annotation)
        if wanted and not any(_fits(value, kind) for kind in wanted):
            fix = " or ".join(_words(kind) for kind in wanted)
            raise Misuse(f"`{name}=` of `{of.__name__}` is `{value!r:.80}`; use {fix}")


def _wrong_call(
    name: str, signature: inspect.Signature, given: tuple[Any, ...], named: Mapping[str, Any]
) -> str:
    known = list(signature.parameters)
    for argument in named:
        if argument not in known:
            takes = ", ".join(f"`{each}`" for each in known) or "none"
            hint = renamed(argument, known) or near(argument, known)
            return f"`{name}` has no argument `{argument}`{hint}; it takes {takes}"
    places = [
        each.name
        for each in signature.parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    if len(given) > len(places):
        rest = f"only {', '.join(f'`{each}`' for each in places)}" if places else "no argument"
        fix = (
            f"write `{name}({known[len(places)]}=...)`"
            if len(known) > len(places)
            else "leave it out"
        )
        return f"`{name}` takes {rest} by place; {fix}"
    twice = [each for each in places[: len(given)] if each in named]
    if twice:
        return f"`{name}` is given `{twice[0]}` twice; leave one out"
    missing = [
        each.name
        for each in signature.parameters.values()
        if each.default is each.empty and each.name not in {*places[: len(given)], *named}
    ]
    return f"`{name}` needs `{missing[0]}`; write `{name}({', '.join(f'{each}=...' for each in missing)})`"


@functools.cache
def _wanted(annotation: Any) -> tuple[Any, ...]:
    """The types that an argument may have; none where the value itself decides (names, durations, sizes)."""
    is_union = isinstance(annotation, UnionType) or get_origin(annotation) is Union
    kinds = get_args(annotation) if is_union else (annotation,)
    if str in kinds and not _NUMBERS.isdisjoint(kinds):
        return ()
    return kinds if all(_is_judged(kind) for kind in kinds) else ()


def _is_judged(kind: Any) -> bool:
    if kind in _WORDS or get_origin(kind) in {Literal, tuple, dict}:
        return True
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if kind is Any or isinstance(value, bool):
        return kind in {Any, bool}
    if isinstance(kind, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        of = get_args(kind)[0]
        return isinstance(value, _SEVERAL) and all(_fits(each, of) for each in value)
    if origin is dict:
        key, of = get_args(kind)
        return isinstance(value, dict) and all(
            _fits(name, key) and _fits(each, of) for name, each in value.items()
        )
    if isinstance(value, int):
        return kind in _NUMBERS and abs(value) <= _MAX_INT
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    match get_origin(kind):
        case origin if origin is Literal:
            *words, last = (f"`{each}`" for each in get_args(kind))
            return f"{', '.join(words)} or {last}" if words else last
        case origin if origin is tuple:
            return f"several in a tuple, each {_words(get_args(kind)[0])}"
        case origin if origin is dict:
            key, of = (_words(each) for each in get_args(kind))
            return f"a dict with {key} for a key, and for its value {of}"
    if isinstance(kind, UnionType):
        return " or ".join(_words(each) for each in get_args(kind))
    return _WORDS.get(kind) or f"`{kind.__name__}(...)`"
