"""The one way to commit: a change goes to the store, and what must follow a commit follows here.

In: a `Change`, whose rows, fences and appends land together or not at all, wherever the log keeps
its events (the store sees to that). Out: what it became. Partition workers, runs that consume,
direct calls, sources, producers, delayed messages, replays and operators' requests all commit here,
so that none of them forgets to wake whoever waits for what it has stored. It judges nothing.
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
        storage: The store it commits to, for whoever has to read what it is about to change.
        delayed: Set when a message may have been stored that is due later. Cleared by the one task
            that appends what is due.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.delayed = asyncio.Event()

    def fenced(self, fence: tuple[Check, ...]) -> Commit:
        """Commit only as long as `fence` holds: for whoever acts on rows that somebody owns."""

        async def commit(change: Change) -> Applied:
            return await self.commit(msgspec.structs.replace(change, checks=fence + change.checks))

        return commit

    async def commit(self, change: Change) -> Applied:
        """Make `change` durable, all of it or nothing, in the order of the calls; see `Storage.apply`.

        Raises:
            Fenced: Another owner has taken over.
            Conflict: What the change relied on is stale.
            Unknown, TooLarge, Invalid: An append is not one that the log takes.
            DiskFull, Overloaded: There is no room for it; nothing landed.
            Unavailable: The store is closing or away; whether it landed is unknown.
        """
        try:
            applied = await self.storage.apply(change)
        except Unavailable:
            # It may have landed all the same.
            if any(append.later for append in change.appends):
                self.delayed.set()
            raise
        if applied.later:
            self.delayed.set()
        return applied
