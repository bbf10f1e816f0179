"""Event ids that a stream has seen lately: rows with an expiry, queried once per change.

Only events with ids are looked up. An id counts for the whole stream, so that a producer that
repeats an event without a key meets its mark whichever partition it chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw

from headrace.storage.kv.log_appends import Statement
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.statements import SQL

SWEPT_AT_ONCE = 10_000


class SeenIds:
    """The ids seen. Owned by the broker."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage

    def seen(self, stream: int, ids: Sequence[str], now: int) -> set[str]:
        """Those of `ids` that the stream knows and that have not expired."""
        if not ids:
            return set()
        # `carray` binds the whole list as one value, so the statement is the same, and compiled
        # once, for any number of ids.
        rows = self._storage.query(SQL["seen_ids"], (stream, apsw.carray(tuple(ids)), now))
        return {str(row[0]) for row in rows}

    def statements(self, marks: Mapping[tuple[int, str], int]) -> list[Statement]:
        """The statements that write new marks."""
        if not marks:
            return []
        # In the table's order, so that neighbours are written to the same page one after another.
        return [(SQL["mark_id"], [(*mark, marks[mark]) for mark in sorted(marks)])]

    async def sweep(self, now: int) -> None:
        """Remove what has expired, in slices, so that no commit takes long."""
        # Queried first, since most sweeps find nothing and then cost no commit.
        while self._storage.query(SQL["has_expired_ids"], (now,)):
            await self._storage.write([(SQL["delete_expired_ids"], [(now, SWEPT_AT_ONCE)])])
