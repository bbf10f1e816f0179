"""The SQL statements of the embedded log, read once from `statements.sql`.

Comes in: a name. Goes out: the statement's text, on one line, so that SQLite's statement cache knows it again.
"""

from __future__ import annotations

import re
from pathlib import Path

_FILE = Path(__file__).with_suffix(".sql")
_NAME = re.compile(r"^-- name: (\w+)\n", re.M)
_COMMENT = re.compile(r"^--.*\n?", re.M)


def read_statements(text: str) -> dict[str, str]:
    """Split a page of SQL at its `-- name:` lines; comments are dropped."""
    _, *parts = _NAME.split(text)
    return {
        name: " ".join(_COMMENT.sub("", body).split())
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


SQL = read_statements(_FILE.read_text())
