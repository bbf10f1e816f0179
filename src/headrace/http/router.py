"""A table from methods and paths to handlers. Pure.

Patterns are written `/streams/{stream}/records`; a segment in braces matches any text.
"""

from __future__ import annotations

from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from headrace.http.problem_details import NotAllowed
from headrace.model.errors import Invalid, Unknown

H = TypeVar("H")


class Router(Generic[H]):
    """A table of patterns. Filled once, then only read."""

    def __init__(self) -> None:
        # By the number of segments, so that a path is compared with few patterns.
        self._patterns: dict[int, list[tuple[tuple[str | None, ...], str, dict[str, H]]]] = {}

    def add(self, method: str, pattern: str, handler: H) -> None:
        """Add a handler; a pattern with literal segments must be added before one with braces at the same place."""
        parts = tuple(None if part.startswith("{") else part for part in pattern.split("/")[1:])
        rows = self._patterns.setdefault(len(parts), [])
        for known, _, methods in rows:
            if known == parts:
                methods[method] = handler
                return
        rows.append((parts, pattern, {method: handler}))

    def rows(self) -> list[tuple[str, str, H]]:
        """Every method, pattern and handler of the table."""
        return [
            (method, text, handler)
            for rows in self._patterns.values()
            for _, text, methods in rows
            for method, handler in methods.items()
        ]

    def patterns(self) -> list[tuple[str, str]]:
        """Every method and pattern of the table."""
        return [(method, text) for method, text, _ in self.rows()]

    def find(self, method: str, raw_path: str) -> tuple[H, tuple[str, ...], str]:
        """Return the handler, the texts of the path's parameters, and the pattern.

        Raises:
            Unknown: No pattern fits the path.
            NotAllowed: One does, but not with this method.
            Invalid: A segment is not UTF-8 once unquoted.
        """
        # Split before the segments are unquoted: a key may contain a slash (`%2F`).
        parts = raw_path.split("/")[1:]
        if len(parts) > 1 and parts[-1] == "":
            parts.pop()
        allowed: set[str] = set()
        for pattern, text, methods in self._patterns.get(len(parts), ()):
            if all(want is None or want == part for want, part in zip(pattern, parts, strict=True)):
                handler = methods.get("GET" if method == "HEAD" else method)
                if handler is None:
                    allowed.update(methods)
                    continue
                found = (part for want, part in zip(pattern, parts, strict=True) if want is None)
                return handler, tuple(unquoted(part) for part in found), text
        if allowed:
            names = ", ".join(sorted({*allowed, "HEAD"} if "GET" in allowed else allowed))
            raise NotAllowed(f"`{method}` does nothing at `{raw_path}`; use {names}", names)
        raise Unknown(f"there is nothing at `{raw_path}`")


def unquoted(part: str) -> str:
    """Return a segment as text.

    Raises:
        Invalid: It is not UTF-8.
    """
    if "%" not in part:
        return part
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            f"the path segment `{part}` is not UTF-8; percent-encode UTF-8 bytes"
        ) from error
