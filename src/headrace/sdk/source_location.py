"""Places in the author's files, for errors that name file and line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

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
