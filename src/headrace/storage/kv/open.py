"""From a URL to a storage driver; the only place that knows which there are."""

from __future__ import annotations

from pathlib import Path

from headrace.environment.clock import Clock
from headrace.model.errors import Misuse
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.kv.sqlite.storage import SqliteStorage

KNOWN = ("embedded", "memory:")


async def open_storage(url: str, *, folder: Path, clock: Clock) -> SqliteStorage | MemoryStorage:
    """The storage `url` names; `embedded` keeps its file in `folder`.

    Raises:
        Misuse: No driver is known by that name.
        Locked: Another process holds the folder.
    """
    if url == "embedded":
        return await SqliteStorage.open(folder, clock=clock)
    if url == "memory:":
        return MemoryStorage(clock)
    raise Misuse(
        f"no storage is known by `{url}`; use one of " + ", ".join(f"`{known}`" for known in KNOWN)
    )
