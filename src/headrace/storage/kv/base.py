"""The storage port: ordered maps, changed by values that land together or not at all.

Drivers: `sqlite` (one file, group commit), `memory` (the twin). PostgreSQL fits because a change is
a value: one round trip, no callback inside a transaction. Obeyed by `tests/contract/test_storage.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from headrace.model.effects import Change, Delete, Put, Space
from headrace.model.record import Position


class Applied:
    """The result of a change: the first position of each append, None where it has none.

    It has none where all of it was a duplicate, or is due later: what waits is in `rows`, which the
    storage writes in the same change. `later` counts the events of these, and `cancelled` are the ids
    of those that were taken back.
    """

    __slots__ = ("cancelled", "duplicates", "later", "positions", "rows")

    def __init__(
        self,
        positions: tuple[Position | None, ...] = (),
        duplicates: int = 0,
        rows: tuple[Put | Delete, ...] = (),
        later: int = 0,
        cancelled: tuple[str, ...] = (),
    ) -> None:
        self.positions = positions
        self.duplicates = duplicates
        self.rows = rows
        self.later = later
        self.cancelled = cancelled


class Storage(Protocol):
    """Keeps what must survive. One per node; its owner closes it last."""

    async def apply(self, change: Change) -> Applied:
        """Make `change` durable, all of it or nothing; many callers share one commit.

        Returns once the bytes are on the disk.

        Raises:
            Fenced: A fencing check failed: another owner has taken over.
            Conflict: Another check failed: what the change relied on is stale.
            DiskFull: The disk is full; nothing landed.
            Overloaded: Too many changes are waiting.
            Unavailable: The store is closing or its server is away; whether it landed is unknown.
        """
        ...

    async def get(self, space: Space, key: bytes) -> bytes | None:
        """The value at `key`, as last committed."""
        ...

    async def get_many(
        self, space: Space, keys: Sequence[bytes], *, most: int | None = None
    ) -> list[bytes | None]:
        """The values at `keys`, of one snapshot, in the order of `keys`.

        Raises:
            TooLarge: They have more than `most` bytes together, repeated keys counted each time.
        """
        ...

    async def scan(
        self,
        space: Space,
        low: bytes,
        high: bytes | None = None,
        *,
        limit: int = 1_000,
        most: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs with `low <= key < high` (to the end where `high` is None), ascending.

        Raises:
            TooLarge: Their values have more than `most` bytes together.
        """
        ...

    async def settled(self) -> None:
        """Return once every change handed in so far has landed or failed; reads then see them."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go of the files."""
        ...


Commit: TypeAlias = Callable[[Change], Awaitable[Applied]]
"""Makes a change durable, as `Storage.apply` does."""


async def scan_pages(
    storage: Storage, space: Space, low: bytes, high: bytes | None = None, *, limit: int = 1_000
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """All pairs with `low <= key < high`, ascending, in pages of at most `limit`.

    Each page is a separate snapshot: rows written meanwhile above the page are seen, those below are not.
    """
    while page := await storage.scan(space, low, high, limit=limit):
        yield page
        if len(page) < limit:
            return
        # The smallest key above the last one, so that no row comes twice and none between is left
        # out.
        low = page[-1][0] + b"\x00"
