"""Rows whose time has passed are deleted, a page at a time, so that the store does not grow.

Reading treats an expired row as absent at once; this only frees the space.
"""

from __future__ import annotations

from headrace.model.effects import Change, Check, Delete, Space
from headrace.model.errors import Conflict
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.state.rows import decode_row, version_prefix

PAGE = 1_000


async def sweep(storage: Storage, space: Space, now: int) -> int:
    """Delete the rows of `space` that expired before `now` (µs since the epoch); how many."""
    count = 0
    async for page in scan_pages(storage, space, b"", limit=PAGE):
        for key, row in page:
            version, expires, _ = decode_row(row)
            if not expires or expires > now:
                continue
            # The row may be written between the scan and the delete; its version then is another.
            check = Check(space, key, version_prefix(version))
            try:
                # One change a row: a page in one change would fail as a whole when a single row
                # was written again.
                await storage.apply(Change(checks=(check,), deletes=(Delete(space, key),)))
            except Conflict:
                continue  # written again since: it is not expired
            count += 1
    return count
