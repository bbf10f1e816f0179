"""Reading the ordered maps, with the rows lately seen kept in memory.

One process writes the file, so a row kept here stays true until a commit of this process changes
it; `landed` brings it up to date. The cache is bounded in bytes and is emptied when it is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import apsw

from headrace.model.effects import Space
from headrace.storage.kv.read_limits import weigh, within
from headrace.storage.kv.sqlite.page_checksums import read_error

# Rows of state, positions and ids that are in use at a time; large values are left to SQLite's own
# page cache.
CACHE_BYTES = 16 << 20
CACHED_ROW_BYTES = 16 << 10
# About what CPython needs for a key, a value and their place in a dictionary.
ROW_OVERHEAD = 200
# SQLite allows 32,766 parameters by default; shorter statements keep the cache of compiled ones
# useful.
KEYS_PER_QUERY = 400

_GET = {space: f"SELECT value FROM {space} WHERE key = ?" for space in Space}
_SCAN = {
    space: f"SELECT key, value FROM {space} WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
    for space in Space
}
_SCAN_REST = {
    space: f"SELECT key, value FROM {space} WHERE key >= ? ORDER BY key LIMIT ?" for space in Space
}


class CachedRows:
    """Committed rows. Used on the loop's thread only."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        # None is cached too: an absent row is looked up as often as one that is there.
        self._cache: dict[Space, dict[bytes, bytes | None]] = {space: {} for space in Space}
        self._size = 0

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The value at `key`.

        Raises:
            Corrupt: What the disk gives back is not what was written; so for every other read.
            Unavailable: It cannot be read now.
        """
        cached = self._cache[space]
        if key in cached:
            return cached[key]
        rows = self._fetch(_GET[space], (key,))
        value: bytes | None = rows[0][0] if rows else None  # type: ignore[assignment]  # STRICT blobs
        self._keep(space, key, value)
        return value

    def get_many(
        self, space: Space, keys: Sequence[bytes], most: int | None = None
    ) -> list[bytes | None]:
        """The values at `keys`, of one snapshot.

        Raises:
            TooLarge: They have more than `most` bytes together.
        """
        cached, bound = self._cache[space], most
        # `dict.fromkeys` removes repetitions and keeps the order; each row is read once.
        missing = [key for key in dict.fromkeys(keys) if key not in cached]
        found: dict[bytes, bytes | None] = {key: cached.get(key) for key in keys}
        if len(missing) > KEYS_PER_QUERY:
            # Several queries read one snapshot only inside a transaction; a single query is one by
            # itself.
            self._fetch("BEGIN", ())
        try:
            for start in range(0, len(missing), KEYS_PER_QUERY):
                some = self._look_up(space, missing[start : start + KEYS_PER_QUERY], most)
                found.update(some)
                if most is not None:
                    most -= sum(len(value) for _, value in some)
        finally:
            if len(missing) > KEYS_PER_QUERY:
                # A read transaction that stays open would keep the checkpointer from restarting
                # the log.
                self._fetch("COMMIT", ())
        for key in missing:
            self._keep(space, key, found[key])
        answer = [found[key] for key in keys]
        if bound is not None:
            weigh(answer, bound)
        return answer

    def _look_up(
        self, space: Space, keys: Sequence[bytes], most: int | None
    ) -> list[tuple[bytes, bytes]]:
        marks = ",".join("?" * len(keys))
        sql = f"SELECT key, value FROM {space} WHERE key IN ({marks})"
        return self._pairs(sql, tuple(keys), most)

    def scan(
        self, space: Space, low: bytes, high: bytes | None, limit: int, most: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Pairs in ascending order.

        Raises:
            TooLarge: Their values have more than `most` bytes together.
        """
        if high is None:
            return self._pairs(_SCAN_REST[space], (low, limit), most)
        return self._pairs(_SCAN[space], (low, high, limit), most)

    def _pairs(
        self, sql: str, values: tuple[bytes | int, ...], most: int | None
    ) -> list[tuple[bytes, bytes]]:
        # STRICT tables hold nothing but blobs here.
        if most is None:
            return cast("list[tuple[bytes, bytes]]", self._fetch(sql, values))
        try:
            # A cursor that is left half-read keeps its snapshot: close it even when `within`
            # raises.
            with closing(self._connection.execute(sql, values)) as rows:
                return list(within(cast("Iterator[tuple[bytes, bytes]]", rows), most))
        except apsw.Error as error:
            raise read_error(error, self._path) from error

    def _fetch(self, sql: str, values: tuple[bytes | int, ...]) -> list[tuple[object, ...]]:
        try:
            return cast(
                "list[tuple[object, ...]]", self._connection.execute(sql, values).fetchall()
            )
        except apsw.Error as error:
            raise read_error(error, self._path) from error

    def landed(self, changed: Mapping[Space, Mapping[bytes, bytes | None]]) -> None:
        """These rows are committed."""
        for space, values in changed.items():
            for key, value in values.items():
                self._keep(space, key, value)

    def _keep(self, space: Space, key: bytes, value: bytes | None) -> None:
        size = 0 if value is None else len(value)
        if size > CACHED_ROW_BYTES:
            # The former value may be small and cached; it must not outlive the large one that
            # replaces it.
            dropped = self._cache[space].pop(key, None)
            self._size -= len(dropped or b"")
            return
        if self._size > CACHE_BYTES:
            # Emptied as a whole: the order of use would have to be recorded at every hit.
            for rows in self._cache.values():
                rows.clear()
            self._size = 0
        cached = self._cache[space]
        if key in cached:
            self._size -= len(cached[key] or b"")
        else:
            # Keys count even for absent rows, else a scan over missing keys would grow the cache
            # without bound.
            self._size += len(key) + ROW_OVERHEAD
        self._size += size
        cached[key] = value
