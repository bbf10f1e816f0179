"""A replication slot as its server sees it: what a database keeps for one reader of its log."""

from __future__ import annotations

from typing import Final

import msgspec

SLOT_WARNING_BYTES: Final = 1 << 30
"""A slot for which the server keeps more than this is reported as behind."""


class Slot(msgspec.Struct, frozen=True):
    """One replication slot of a PostgreSQL server.

    Attributes:
        name: What the database calls it.
        active: Whether it is being read now.
        wal_status: The server's word: `reserved`, `extended`, `unreserved`, `lost`; "" for unknown.
        behind_bytes: Of the server's log, not yet read.
        kept_bytes: Of the server's log, kept for this slot.
        safe_bytes: That may still be written before the slot is at risk; None where nothing bounds it.
        error: Why the database did not say; "" where it did.
    """

    name: str
    active: bool = False
    wal_status: str = ""
    behind_bytes: int | None = None
    kept_bytes: int | None = None
    safe_bytes: int | None = None
    error: str = ""

    def state(self, warning_bytes: int = SLOT_WARNING_BYTES) -> str:
        """State of the slot.

        `ok`, `behind` (more is kept than the warning level), `at risk` (the server may soon forget
        what it needs), `lost` (it has), or `unknown` where the database did not say.
        """
        if self.error:
            return "unknown"
        if self.wal_status == "lost":
            return "lost"
        if self.wal_status == "unreserved":
            return "at risk"
        return (
            "behind" if max(self.behind_bytes or 0, self.kept_bytes or 0) > warning_bytes else "ok"
        )
