"""Answer types of a route, by status: read from the handler's return annotation and from `responses=`.

In: types. Out: `Answer`s, which can leave the author's process. An annotation that has no JSON Schema
says nothing; a type in `responses=` that has none is refused.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from headrace.model.codec import Coder
from headrace.model.errors import Misuse
from headrace.model.problem import MEDIA, SCHEMA, Problem
from headrace.model.triggers.http import Answer
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures

_RAW: Final = {bytes: "application/octet-stream", str: "text/plain"}
_NO_BODY: Final = frozenset({204, 304})


def answers_of(
    annotated: Any,
    responses: dict[int, Any] | None,
    *,
    generates: bool,
    live: bool,
    where: str,
) -> tuple[dict[int, Answer], bool]:
    """The answers by status, and whether the route may answer with other statuses too.

    Args:
        annotated: The handler's return annotation; `Any` where it has none.
        responses: What the author said of statuses; None where nothing.
        generates: Whether the handler yields, so that its answer is a list.
        live: Whether each value is an answer's part, so that types are those of parts.
        where: The function, for errors.

    Raises:
        Misuse: A type in `responses` has no JSON Schema.
    """
    found: dict[int, Answer] = {}
    item = _yielded(annotated) if generates else annotated
    plain = _plain(item)
    if plain is not Any and generates and not live:
        plain = list[plain]  # type: ignore[valid-type]  # a type made as the program runs
    if plain is not Any:
        found[200] = Answer(_schema(plain))
    for status, of in (responses or {}).items():
        found[status] = _declared(status, of, where)
    return found, responses is None and (item is Any or Reply in _members(item))


def _declared(status: int, of: Any, where: str) -> Answer:
    if of is None or status in _NO_BODY:
        return Answer(media="")
    if of is Problem:
        return Answer(SCHEMA, MEDIA)
    if of in _RAW:
        return Answer(media=_RAW[of])
    try:
        return Answer(_schema_of(of))
    except Misuse as error:
        raise Misuse(f"{where}: `responses=` of its route, at {status}: {error}") from error


def _yielded(annotated: Any) -> Any:
    """Return the type of the values that a handler with this annotation yields; `Any` where it has none."""
    arguments = get_args(annotated)
    return arguments[0] if arguments else Any


def _plain(annotated: Any) -> Any:
    """The type of answers that are not a `Reply`; `Any` where there is none, or it is unsaid."""
    others = [each for each in _members(annotated) if each is not Reply and each is not Failures]
    if not others or Any in others:
        return Any
    return Union[tuple(others)]  # noqa: UP007 - a type made as the program runs


def _members(of: Any) -> tuple[Any, ...]:
    return get_args(of) if get_origin(of) in {Union, UnionType} else (of,)


def _schema(of: Any) -> dict[str, Any] | None:
    """The JSON Schema of an annotation; None where it has none."""
    try:
        return _schema_of(of)
    except Misuse:
        return _any_of(_members(of))


def _any_of(members: tuple[Any, ...]) -> dict[str, Any] | None:
    """The schema of types that no decoder could distinguish, and that are answered all the same."""
    choices: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for member in members if len(members) > 1 else ():
        schema = _schema(member)
        if schema is None:
            return None
        for name, definition in schema.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:
                return None
        choices.append(schema)
    return {"anyOf": choices, "$defs": definitions} if choices else None


def _schema_of(of: Any) -> dict[str, Any] | None:
    return {"type": "null"} if of in {None, NoneType} else Coder("json", of).schema()
