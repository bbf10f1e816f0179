"""From a URL to a storage driver; the only place that knows which there are."""

from __future__ import annotations

from pathlib import Path

from headrace.keepers.storage.memory import MemoryStorage
from headrace.keepers.storage.sqlite.storage import SqliteStorage
from headrace.model.errors import Misuse
from headrace.world.clock import Clock

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
