"""Events that retention and compaction must keep: those that wait for a retry, or stop their partition.

In: the trouble rows of deployed functions. Out: for each partition the lowest offset that one of them needs. The rows hold
offsets, not events: an event that is deleted from the log is lost to its function, whatever attempts it has left. A slow
function holds nothing back; the events that it misses are reported.
"""

from __future__ import annotations

from collections.abc import Container

from headrace.delivery.positions import decode_position, decode_trouble, place_of
from headrace.model.effects import Space
from headrace.storage.kv.base import Storage, scan_pages

PAGE = 1_000


async def lowest_owed(storage: Storage, functions: Container[str]) -> dict[tuple[str, int], int]:
    """Return the lowest offset that one of these functions needs, by stream and partition.

    Raises:
        Corrupt, Unavailable: As the storage.
    """
    found: dict[tuple[str, int], int] = {}
    async for page in scan_pages(storage, Space.TROUBLE, b"", limit=PAGE):
        for key, row in page:
            function, stream, partition = place_of(key)
            position = await storage.get(Space.POSITIONS, key) if function in functions else None
            # Rows of functions that are not deployed hold nothing back, or a removed function
            # would keep its streams for ever.
            if position is None:
                continue
            # A plain commit moves the position without changing the trouble row, so the row may be
            # outdated.
            passed = decode_position(position).progress.watermark
            for each in decode_trouble(row):
                if each.high > passed:
                    owed, at = max(each.low, passed), (stream, partition)
                    found[at] = min(owed, found.get(at, owed))
    return found
