"""Folders an instance must read although its uid may not pass through their parents.

A virtual environment under `/root`, an app in a private temporary folder: the zygote takes a mount
namespace of its own, covers each locked parent with an empty folder and binds only what is needed
beneath it. So instances can import late, and see less than before. Root only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headrace.runtime import kernel

SEARCHABLE = 0o001


def locked_parent(path: Path) -> Path | None:
    """The topmost folder on the way to `path` that other uids may not pass."""
    for parent in reversed(path.parents):
        try:
            if not parent.stat().st_mode & SEARCHABLE:
                return parent
        except OSError:
            return None
    return None


def unlock(paths: Iterable[str]) -> list[str]:
    """Make the paths reachable for every uid, in a mount namespace of our own; the covered folders.

    Raises:
        OSError: The kernel refuses, or the process is not root.
    """
    needed: dict[Path, set[Path]] = {}
    for name in paths:
        path = Path(name)
        if not name or not path.exists():
            continue
        # Both the name and what it leads to are looked up later.
        for place in {path.absolute(), path.resolve()}:
            parent = locked_parent(place)
            if parent is not None:
                needed.setdefault(parent, set()).add(place)
    if not needed:
        return []
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    for parent, places in needed.items():
        _cover(parent, _outermost(places))
    return [str(parent) for parent in needed]


def _outermost(places: set[Path]) -> list[Path]:
    return sorted(place for place in places if not any(up in places for up in place.parents))


def _cover(parent: Path, places: list[Path]) -> None:
    held = {place: os.open(place.resolve(), os.O_PATH | os.O_CLOEXEC) for place in places}
    folders = {place: place.resolve().is_dir() for place in places}
    try:
        kernel.mount("tmpfs", str(parent), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
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
