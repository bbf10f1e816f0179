"""Error for a function that is not deployed, with similar names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from headrace.model.errors import Unknown

MAX_NAMES: Final = 20


def unknown_function(name: str, known: Iterable[str]) -> Unknown:
    """Return the error for a function called `name`, which is none of `known`."""
    # Functions of the platform's own apps start with an underscore, and cannot be meant.
    names = sorted(each for each in known if each[:1] != "_")
    short = [each for each in names if each.endswith(f".{name}")][:MAX_NAMES]
    if short:
        meant = " or ".join(f"`{each}`" for each in short)
        return Unknown(f"there is no function `{name}`; write the app's name too: {meant}")
    # All names of an app start with its name, so they look similar: compare only the rest.
    app = name.rpartition(".")[0] + "."
    rest = {each.removeprefix(app): each for each in names if app != "." and each.startswith(app)}
    if rest:
        found = [rest[each] for each in get_close_matches(name.removeprefix(app), rest, n=3)]
    else:
        found = get_close_matches(name, names, n=3)
    if found:
        meant = ", ".join(f"`{each}`" for each in found)
        return Unknown(f"there is no function `{name}` (did you mean {meant}?)")
    listed = ", ".join(f"`{each}`" for each in names[:MAX_NAMES]) or "none"
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return Unknown(f"there is no function `{name}`; deployed are: {listed}{more}")
