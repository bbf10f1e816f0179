"""The error for a function that nobody has deployed, with the names that look like it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.model.errors import Unknown
from headrace.sdk.place import near

MAX_NAMES: Final = 20


def unknown_function(name: str, known: Iterable[str]) -> Unknown:
    """What to say of a function called `name`, which is none of `known`."""
    names = sorted(known)
    short = [each for each in names if each.endswith(f".{name}")][:MAX_NAMES]
    if short:
        meant = " or ".join(f"`{each}`" for each in short)
        return Unknown(f"there is no function `{name}`; write the app's name too: {meant}")
    if hint := near(name, names):
        return Unknown(f"there is no function `{name}`{hint}")
    listed = ", ".join(f"`{each}`" for each in names[:MAX_NAMES]) or "none"
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return Unknown(f"there is no function `{name}`; deployed are: {listed}{more}")
