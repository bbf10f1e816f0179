"""The only way to commit: applies a change to the store, and does what must follow each commit.

In: a `Change`, whose rows, fences and appends are applied atomically, wherever the log keeps its events (the store
ensures that). Out: the result. Partition workers, consumer runs, direct calls, sources, producers, delayed messages,
replays and operators' requests all commit here, so that none of them forgets to wake the task that waits for delayed
messages. It decides nothing.
"""

from __future__ import annotations

import asyncio

import msgspec

from headrace.model.effects import Change, Check
from headrace.model.errors import Unavailable
from headrace.storage.kv.base import Applied, Commit, Storage


class Committer:
    """One per node; shared by all that commit, from any task.

    Attributes:
        storage: The store that it commits to, for readers of the rows that a change is about.
        delayed: Set when a message may have been stored that is due later. Cleared by the one task
            that appends what is due.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.delayed = asyncio.Event()

    def fenced(self, fence: tuple[Check, ...]) -> Commit:
        """Return a commit that applies only as long as `fence` holds: for changes to rows with an owner."""

        async def commit(change: Change) -> Applied:
            # The fence first: a lost partition is then reported as `Fenced`, not as a conflict of
            # another check.
            return await self.commit(msgspec.structs.replace(change, checks=fence + change.checks))

        return commit

    async def commit(self, change: Change) -> Applied:
        """Make `change` durable, all of it or nothing, in the order of the calls; see `Storage.apply`.

        Raises:
            Fenced: Another owner has taken over.
            Conflict: What the change relied on is stale.
            Unknown, TooLarge, Invalid: An append is not one that the log takes.
            DiskFull, Overloaded: There is no space for it; nothing was applied.
            Unavailable: The store is closing or unreachable; whether it was applied is unknown.
        """
        try:
            applied = await self.storage.apply(change)
        except Unavailable:
            # It may have been applied nevertheless: waking the task once too often is harmless.
            if any(append.later for append in change.appends):
                self.delayed.set()
            raise
        if applied.later:
            self.delayed.set()
        return applied
