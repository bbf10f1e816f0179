"""Durations as people write them in a test: `3d`, `2h30m`, `1.5s`, a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from headrace.model.errors import Misuse

UNITS: Final = {
    "w": 604_800.0,
    "d": 86_400.0,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
    "us": 0.000_001,
}
_part = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|us|w|d|h|m|s)")


def seconds_of(duration: str | float | timedelta) -> float:
    """Seconds.

    Raises:
        Misuse: It is no duration, or runs backwards.
    """
    if isinstance(duration, timedelta):
        found = duration.total_seconds()
    elif isinstance(duration, str):
        found = _parsed(duration)
    else:
        found = float(duration)
    if not 0 <= found < 1e12:
        raise Misuse(f"`{duration}` does not go forwards; time only passes")
    return found


def _parsed(text: str) -> float:
    found, at = 0.0, 0
    while part := _part.match(text, at):
        found += float(part[1]) * UNITS[part[2]]
        at = part.end()
    if not at or text[at:].strip():
        raise Misuse(
            f"`{text!r}` is no duration; write seconds, or numbers with units such as `90s`, "
            "`2h30m` or `3d`"
        )
    return found
