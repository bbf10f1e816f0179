"""Spans of time as people write them: `"5m"`, `"1h30m"`, `2.5`. Pure; what comes out is seconds."""

from __future__ import annotations

import re
from typing import Final

from headrace.model.errors import Misuse

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def seconds_in(span: object, what: str, *, low: float, high: float) -> float:
    """The seconds of `span`, which must be from `low` to `high`.

    Raises:
        Misuse: It is not a span of time, or out of range; `what` names it.
    """
    if isinstance(span, str):
        written = span.replace(" ", "")
        parts = list(_PART.finditer(written))
        if not parts or "".join(part[0] for part in parts) != written:
            raise Misuse(f'{what} is {span!r}; write seconds, or "500ms", "90s", "5m", "1h30m"')
        seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    elif isinstance(span, (int, float)) and not isinstance(span, bool):
        seconds = float(span)
    else:
        raise Misuse(f'{what} is {span!r}; write seconds, or "500ms", "90s", "5m", "1h30m"')
    if not low <= seconds <= high:
        raise Misuse(f"{what} is {seconds:g} s, which is out of range; use {low:g} to {high:,.0f}")
    return seconds
