"""Cache of stores in an instance, between invocations, bounded by count and bytes.

A cached value may be stale: effects carry the version that was read, and a commit that relied on a
stale one is refused and run again with `fresh` set. So the cache needs no invalidation.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 16 << 20

Entry = tuple[int, bytes | None]
Key = tuple[str, str]


class StateCache:
    """Versions and values by store and key, the least recently used evicted first."""

    def __init__(self, entries: int = MAX_ENTRIES, size: int = MAX_BYTES) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._limit = entries
        self._size_limit = size
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """Return version and value if they are cached."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, version: int, value: bytes | None) -> None:
        """Store version and value; None as value: the key is absent."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.size -= _weight(key, before[1])
        weight = _weight(key, value)
        # It would evict everything else and be evicted by the next value.
        if weight > self._size_limit:
            return
        self._entries[key] = (version, value)
        self.size += weight
        while self.size > self._size_limit or len(self._entries) > self._limit:
            oldest, (_, forgotten) = self._entries.popitem(last=False)
            self.size -= _weight(oldest, forgotten)

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self.size = 0


def _weight(key: Key, value: bytes | None) -> int:
    # 100 bytes stand for the entry itself, so that a million empty values do not count as nothing.
    return len(key[1]) + (0 if value is None else len(value)) + 100
