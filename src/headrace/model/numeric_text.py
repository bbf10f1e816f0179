"""Numbers in texts: of paths, queries and rows. Pure.

The same texts are numbers everywhere: decimal digits, in 64 bits where they are whole, within a double
where they are not. NaN and infinity are none.
"""

from __future__ import annotations

import math
import re

from headrace.model.codec import MAX_INTEGER, MIN_INTEGER

_WHOLE = re.compile(r"[+-]?[0-9]{1,64}", re.ASCII)
_REAL = re.compile(r"[+-]?[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def whole(text: str) -> int | None:
    """The integer a text writes; None where it writes none of 64 bits."""
    if not _WHOLE.fullmatch(text):
        return None
    value = int(text)
    return value if MIN_INTEGER <= value <= MAX_INTEGER else None


def real(text: str) -> float | None:
    """The number a text writes; None where it writes none, or one beyond a double."""
    if not _REAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
