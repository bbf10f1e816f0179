"""Places in the author's files, for errors that name file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import CodeType

from headrace.model.former_names import renamed

MAX_NEAR, MAX_NEAR_LETTERS = 200, 200
"""Names that are looked at closely, and letters of a name for which any is."""
_OURS = str(Path(__file__).resolve().parent.parent)


def is_ours(filename: str) -> bool:
    """Return whether a frame's file belongs to Headrace itself."""
    return filename.startswith(_OURS)


def here() -> str:
    """`file:line` of the nearest frame that is not Headrace's own."""
    frame = sys._getframe(1)
    while is_ours(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def of_code(code: CodeType) -> str:
    """`file:line` of a function."""
    return f"{code.co_filename}:{code.co_firstlineno}"


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
