"""Known names that look like one that is not known, for errors that say what may have been meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.model.former_names import renamed

MAX_NEAR, MAX_NEAR_LETTERS = 200, 200
"""Names that are looked at closely, and letters of a name for which any is."""


def near(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` where a known name looks like `name` or replaced it, else nothing."""
    known = list(known)
    if now := renamed(name, known):
        return now
    if len(name) > MAX_NEAR_LETTERS:
        return ""
    # Imported on the way to an error only: it is slow to load, and most programs never need it.
    from difflib import get_close_matches
    from heapq import nsmallest

    # Of thousands, most differ at a glance; a closer look takes time.
    likely = nsmallest(
        MAX_NEAR, known, key=lambda each: (each[:3] != name[:3], abs(len(each) - len(name)))
    )
    found = get_close_matches(name, likely, n=3)
    return f" (did you mean {', '.join(f'`{each}`' for each in found)}?)" if found else ""
