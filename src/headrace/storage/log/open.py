"""From a URL to a broker driver; the only place that knows which there are."""

from __future__ import annotations

from headrace.keepers.brokers.embedded.log import EmbeddedBroker
from headrace.keepers.brokers.memory import MemoryBroker
from headrace.keepers.storage.base import Storage
from headrace.keepers.storage.memory import MemoryStorage
from headrace.keepers.storage.sqlite.storage import SqliteStorage
from headrace.model.errors import Misuse
from headrace.world.clock import Clock
from headrace.world.tasks import Tasks

KNOWN = ("embedded", "memory:")


def open_broker(
    url: str, *, storage: Storage, clock: Clock, tasks: Tasks
) -> EmbeddedBroker | MemoryBroker:
    """The broker `url` names; a log that lives in a store needs the store of its own kind.

    Raises:
        Misuse: No driver is known by that name, or it cannot live in this storage.
    """
    if url == "embedded":
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
        f"the broker `{url}` lives in a storage of its own kind; use `{url}` for the storage too"
    )
