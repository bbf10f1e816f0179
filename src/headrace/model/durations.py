"""Durations as people write them: `"5m"`, `"1h30m"`, `2.5`, a `timedelta`. Pure; what comes out is seconds.

The only reader of durations: arguments, settings, the command line and queries all come here. A policy
declares a field as `Seconds`; what is given may be any `Duration`, and what is read is a float.
"""

from __future__ import annotations

import re
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Final, overload

from msgspec.structs import force_setattr

from headrace.model.errors import Misuse

Duration = float | str | timedelta
"""A duration as it may be given: seconds, a text such as `"1h30m"`, or a `timedelta`."""

if TYPE_CHECKING:

    class Seconds:
        """A field that takes a `Duration` and holds seconds."""

        @overload
        def __get__(self, instance: None, owner: type) -> Seconds: ...
        @overload
        def __get__(self, instance: object, owner: type) -> float: ...
        def __get__(self, instance: object, owner: type) -> Seconds | float:
            """Seconds."""
            ...

        def __set__(self, instance: object, value: Duration) -> None:
            """As it may be given."""
            ...

    class MaybeSeconds:
        """A field that takes a `Duration` or None, and holds seconds or None."""

        @overload
        def __get__(self, instance: None, owner: type) -> MaybeSeconds: ...
        @overload
        def __get__(self, instance: object, owner: type) -> float | None: ...
        def __get__(self, instance: object, owner: type) -> MaybeSeconds | float | None:
            """Seconds, or None."""
            ...

        def __set__(self, instance: object, value: Duration | None) -> None:
            """As it may be given."""
            ...

else:
    Seconds = float | str
    MaybeSeconds = float | str | None

_UNITS: Final = {
    "us": 0.000_001,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|[smhdw])")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_BEYOND: Final = 1 << 64
_FIX: Final = 'write seconds, a text such as "500ms", "90s", "5m" or "1h30m", or a `timedelta`'


def seconds_in(span: object, what: str, *, low: float, high: float) -> float:
    """The seconds of `span`, which must be from `low` to `high`; a bare number is seconds, as text too.

    Raises:
        Misuse: It is not a duration, or out of range; `what` names it.
    """
    match span:
        case bool():
            raise Misuse(f"{what} is {span!r}; {_FIX}")
        case float():
            seconds = span
        case int():
            # An int may be larger than any float.
            seconds = float(span) if abs(span) < _BEYOND else inf if span > 0 else -inf
        case str():
            seconds = _read(span, what)
        case timedelta():
            seconds = span.total_seconds()
        case _:
            raise Misuse(f"{what} is {span!r:.80}; {_FIX}")
    if not low <= seconds <= high:
        raise Misuse(
            f"{what} is {seconds:g} s, which is out of range; use {low:,g} to {high:,.15g} seconds"
        )
    return seconds


def _read(text: str, what: str) -> float:
    written = "".join(text.split())
    if written.isascii() and _NUMBER.fullmatch(written):
        return float(written)
    parts = list(_PART.finditer(written)) if written.isascii() else []
    if not parts or "".join(part[0] for part in parts) != written:
        raise Misuse(f"{what} is {text[:80]!r}; {_FIX}")
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts)


def written(span: timedelta) -> str:
    """The text of a span, as its reader takes it: `"1h30m"`; a part of a day or more is in days."""
    micros = span // timedelta(microseconds=1)
    parts: list[str] = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, micros = divmod(micros, round(_UNITS[unit] * 1_000_000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def keep_seconds(
    policy: object, name: str, *, low: float, high: float, what: str | None = None
) -> None:
    """Turn what a field was given into seconds; None stays.

    Args:
        policy: The struct, which has just been made.
        name: The field.
        low: Seconds at least.
        high: Seconds at most.
        what: What an error calls it; else the field and the struct's name.

    Raises:
        Misuse: It is not a duration, or out of range.
    """
    given = getattr(policy, name)
    if given is not None:
        where = f"`{name}=` of `{type(policy).__name__}`" if what is None else what
        force_setattr(policy, name, seconds_in(given, where, low=low, high=high))  # type: ignore[arg-type]  # any struct
