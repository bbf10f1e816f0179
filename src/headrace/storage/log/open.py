"""From a URL to a broker driver; the only place that knows which there are."""

from __future__ import annotations

from headrace.environment.clock import Clock
from headrace.environment.tasks import Tasks
from headrace.model.errors import Misuse
from headrace.storage.kv.base import Storage
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.storage.log.memory import MemoryBroker

KNOWN = ("embedded", "memory:")


def open_broker(
    url: str, *, storage: Storage, clock: Clock, tasks: Tasks
) -> EmbeddedBroker | MemoryBroker:
    """The broker `url` names; a log that is kept in a store needs a store of the same kind.

    Raises:
        Misuse: No driver is known by that name, or it cannot be kept in this storage.
    """
    if url == "embedded":
        # An embedded log shares the transactions of its store, so it cannot be combined with
        # another.
        if isinstance(storage, SqliteStorage):
            return EmbeddedBroker(storage, clock=clock, tasks=tasks)
        raise _misplaced(url)
    if url == "memory:":
        if isinstance(storage, MemoryStorage):
            return MemoryBroker(storage, clock=clock, tasks=tasks)
        raise _misplaced(url)
    raise Misuse(
        f"no broker is known by `{url}`; use one of " + ", ".join(f"`{known}`" for known in KNOWN)
    )


def _misplaced(url: str) -> Misuse:
    return Misuse(
        f"the broker `{url}` is kept in a storage of the same kind; use `{url}` for the storage too"
    )
