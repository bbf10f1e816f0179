"""What retention and compaction may not take: events that wait for an attempt, or stop their partition.

In: the trouble rows of functions that are deployed. Out: for each partition the lowest offset that one of
them is owed. Those rows hold places in the log, not events: what is gone from there is lost to its function,
however many attempts are left. A function that is merely slow is owed nothing; what it loses is told.
"""

from __future__ import annotations

from collections.abc import Container

from headrace.delivery.positions import decode_position, decode_trouble, place_of
from headrace.model.effects import Space
from headrace.storage.kv.base import Storage, scan_pages

PAGE = 1_000


async def lowest_owed(storage: Storage, functions: Container[str]) -> dict[tuple[str, int], int]:
    """The lowest offset owed to one of these functions, by stream and partition.

    Raises:
        Corrupt, Unavailable: As the storage.
    """
    found: dict[tuple[str, int], int] = {}
    async for page in scan_pages(storage, Space.TROUBLE, b"", limit=PAGE):
        for key, row in page:
            function, stream, partition = place_of(key)
            position = await storage.get(Space.POSITIONS, key) if function in functions else None
            if position is None:
                continue
            # The row may be older than the position: a plain commit does not look at it.
            passed = decode_position(position).progress.watermark
            for each in decode_trouble(row):
                if each.high > passed:
                    owed, at = max(each.low, passed), (stream, partition)
                    found[at] = min(owed, found.get(at, owed))
    return found
