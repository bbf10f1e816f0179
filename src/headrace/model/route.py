"""The path of a route an author declares: `/orders/{id:int}/files/{rest:path}`. Pure.

In: a pattern, checked when it is written. Out: whether a request's path fits, and what stands in
the braces, as values. Segments are split before they are unquoted, so that `a%2Fb` is one, and
a literal fits however it is percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from headrace.model.errors import Invalid, Misuse
from headrace.model.numeric_text import real, whole
from headrace.model.text_values import is_of

MAX_PATH: Final = 512
MAX_SEGMENTS: Final = 32
KINDS: Final = ("str", "int", "float", "uuid", "date", "datetime", "decimal", "path")
_FORMATS: Final = {"date": "date", "datetime": "date-time", "decimal": "decimal"}
API_PREFIX: Final = "/-/v1"
"""Where the platform's own paths begin, so that the root belongs to the authors' routes."""
RESERVED: Final = frozenset({"-", "console", "healthz", "metrics", "openapi.json", "readyz"})
"""First segments of the platform's own paths: no route of an author's is found there."""

_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_BRACES = re.compile(r"\{([a-z_][a-z0-9_]{0,63})(?::([a-z]+))?\}", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Segment(NamedTuple):
    """One part of a pattern: a literal text, or a name with the kind of what may stand there."""

    text: str
    name: str = ""
    kind: str = ""


def segments_of(pattern: object, what: str) -> tuple[Segment, ...]:
    """The parts of a pattern.

    Raises:
        Misuse: It is not a path, or one that belongs to the platform.
    """
    if not isinstance(pattern, str) or not pattern.startswith("/") or len(pattern) > MAX_PATH:
        raise Misuse(
            f'`{what}`: the path must begin with `/`; write one such as `"/orders/{{id}}"`'
        )
    if pattern == "/":
        return (Segment(""),)
    parts = pattern.split("/")[1:]
    if len(parts) > MAX_SEGMENTS:
        raise Misuse(f"`{what}`: the path has {len(parts)} segments; at most {MAX_SEGMENTS}")
    found = []
    for place, part in enumerate(parts, start=1):
        segment = _segment(part, what)
        if segment.kind == "path" and place != len(parts):
            raise Misuse(f"`{what}`: `{part}` takes the rest of the path, so it must come last")
        found.append(segment)
    names = [segment.name for segment in found if segment.name]
    if len(set(names)) != len(names):
        raise Misuse(f"`{what}`: a name stands twice in the path; give each its own")
    if unquote(found[0].text) in RESERVED:
        own = ", ".join(f"/{name}" for name in sorted(RESERVED))
        raise Misuse(
            f"`{what}`: the path begins with what belongs to the platform ({own}); put a word of "
            "your own first, such as `/api`"
        )
    return tuple(found)


def _segment(part: str, what: str) -> Segment:
    if braces := _BRACES.fullmatch(part):
        name, kind = braces.group(1), braces.group(2) or "str"
        if kind not in KINDS:
            raise Misuse(f"`{what}`: `{part}` is of no known kind; use {', '.join(KINDS)}")
        return Segment("", name, kind)
    if not _LITERAL.fullmatch(part) or part in {".", ".."}:
        raise Misuse(
            f"`{what}`: `{part}` is not a segment of a path; use letters, digits, `-._~`, or a name in "
            "braces such as `{id}` or `{id:int}`"
        )
    return Segment(part)


def fits(segments: Sequence[Segment], parts: Sequence[str]) -> list[tuple[Segment, str]] | None:
    """The texts that stand in the braces, still quoted; None where the path is another."""
    rest = bool(segments) and segments[-1].kind == "path"
    if len(parts) < len(segments) or (len(parts) > len(segments) and not rest):
        return None
    found = []
    for place, segment in enumerate(segments):
        if segment.kind == "path":
            found.append((segment, "/".join(parts[place:])))
        elif segment.name:
            if not parts[place]:
                return None
            found.append((segment, parts[place]))
        elif segment.text != parts[place] and segment.text != unquote(parts[place]):
            return None
    return found


def value_of(segment: Segment, text: str) -> Any:
    """Value of a parameter, by its kind.

    Raises:
        Invalid: It is not of that kind.
    """
    match segment.kind:
        case "int" if (number := whole(text)) is not None:
            return number
        case "float" if (fraction := real(text)) is not None:
            return fraction
        case "uuid" if _UUID.fullmatch(text):
            return text.lower()
        case "str" | "path":
            return text
        case kind if (known := _FORMATS.get(kind)) is not None and is_of(known, text):
            return text
        case _:
            raise Invalid(
                f"`{segment.name}` in the path is `{text:.80}`, which is not a {segment.kind}"
            )


def shape_of(segments: Sequence[Segment]) -> tuple[str, ...]:
    """Shape of a pattern: patterns of equal shapes match the same paths."""
    return tuple(
        "{path}" if segment.kind == "path" else "{}" if segment.name else segment.text
        for segment in segments
    )


def rank(segments: Sequence[Segment]) -> tuple[int, ...]:
    """For sorting: literal segments go before braces, braces before the rest of a path."""
    return tuple(2 if segment.kind == "path" else 1 if segment.name else 0 for segment in segments)
