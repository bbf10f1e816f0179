"""Folders that an instance must read although its uid may not pass through their parents.

Examples are a virtual environment under `/root` and an app in a private temporary folder. The
zygote creates a mount namespace, covers each locked parent with an empty folder and binds only what
is needed beneath it. So instances can import late, and see less than before. Root only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from headrace.runtime import kernel

OPEN = 0o005
"""Mode bits that let other uids list a folder and pass through it."""
PASSABLE = 0o001
MAX_PASSES = 8
MAX_BINDS = 2_000


def lock_on(path: Path) -> Path | None:
    """Return the topmost folder that keeps other uids from `path`: a parent, or itself; None if there is none."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & PASSABLE:
            return parent
    if path.is_dir() and path.stat().st_mode & OPEN == 0:
        return path
    return None


def unlock(paths: Iterable[str]) -> list[str]:
    """Make the paths reachable for every uid, in a new mount namespace; return the covered folders.

    Raises:
        OSError: The kernel refuses, or the process is not root.
    """
    # An import opens the path as written, and follows its links: both have to be reachable.
    wanted = {
        place
        for path in map(Path, filter(None, paths))
        if path.exists()
        for place in (path.absolute(), path.resolve())
    }
    covered: list[str] = []
    for _ in range(MAX_PASSES):
        # A folder that was bound may itself have locked folders beneath: look again.
        locks: dict[Path, set[Path]] = {}
        for place in wanted:
            lock = lock_on(place)
            if lock is not None:
                locks.setdefault(lock, set()).add(place)
        if not locks:
            break
        # Lazily, since most machines need no mount at all and then keep the host's namespace.
        if not covered:
            kernel.unshare(kernel.CLONE_NEWNS)
            # systemd mounts / shared: without this our mounts would appear in the host's
            # namespace.
            kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        for lock, places in locks.items():
            _cover(lock, _outermost(places))
            covered.append(str(lock))
    return covered


def _outermost(places: set[Path]) -> list[Path]:
    return sorted(place for place in places if not any(up in places for up in place.parents))


def _cover(lock: Path, places: list[Path]) -> None:
    if lock in places:
        places = [*lock.iterdir()]
    if len(places) > MAX_BINDS:
        raise OSError(errno.E2BIG, f"`{lock}` holds {len(places)} entries; make it readable")
    # Opened before the cover hides them: a bind mount can name its source by descriptor
    # afterwards.
    held = {place: os.open(place, os.O_PATH | os.O_CLOEXEC) for place in places if place.exists()}
    folders = {place: place.is_dir() for place in held}
    try:
        kernel.mount("tmpfs", str(lock), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        for place, descriptor in held.items():
            if folders[place]:
                place.mkdir(parents=True, exist_ok=True, mode=0o755)
            else:
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                place.touch()
            kernel.mount(
                f"/proc/self/fd/{descriptor}", str(place), "", kernel.MS_BIND | kernel.MS_REC
            )
    finally:
        for descriptor in held.values():
            os.close(descriptor)
