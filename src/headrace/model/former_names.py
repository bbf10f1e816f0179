"""Option names that have been replaced, so that an error can say what to write instead. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

FORMER_NAMES: Final = {
    "mode": "order",
    "rate": "sample",
    "per_key": "key_limit",
    "lateness": "idle_timeout",
    "only_on": "retry_on",
    "base": "initial_delay",
    "cap": "max_delay",
}
"""The old name of an option, a setting or a field, and the one that does its work now."""
MOVED: Final = {
    "start": "`stream.read(start=...)`",
    "pattern": "`stream.read(pattern=...)`",
    "changes": "`stream.read(changes=...)`, or `changes=` of the foreign source",
}
"""Options of a function that belong to one of its sources now, and how they are written there."""


def renamed(name: str, known: Collection[str]) -> str:
    """Return ` (it is called X now)` where an option had this name before, else nothing.

    Args:
        name: What was written.
        known: The names that may be written there; another one is not suggested.
    """
    now = FORMER_NAMES.get(name)
    return f" (it is called `{now}` now)" if now in known else ""
