"""Watcher of the files of the apps' code and of the settings file.

A node's data folder and the files it writes its own output to are not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from headrace.node.config import FILE_NAME, Settings
from headrace.runtime.child.code_version import is_part

MAX_FILES: Final = 4
"""Files that are named when a reload is reported."""


class Watcher:
    """Collects names of files that changed. Owned by the node's lifecycle.

    Args:
        settings: Whose targets and settings file are watched.
        data_files: Folders and files that the apps' own triggers watch now.
        stop: Ends it.
    """

    def __init__(
        self, settings: Settings, data_files: Callable[[], Collection[Path]], stop: asyncio.Event
    ) -> None:
        self.folders = {folder_of(target) for target in settings.targets}
        self.files = settings_files(settings)
        self._data_files = data_files
        self._stop = stop
        self._data = settings.data.resolve()
        self._holds_code = any(self._data in (folder, *folder.parents) for folder in self.folders)
        self._own = {self._data, *_written_to()}
        self._changed: set[Path] = set()
        self._wake = asyncio.Event()

    async def watch_code(self) -> None:
        """Look at the folders of the apps' code, and all that is beneath."""
        await self._watch(self.folders, is_deep=True)

    async def watch_settings(self) -> None:
        """Look at the folders of the settings file, without what is beneath."""
        places = {file.parent for file in self.files}
        if above := {each for each in places if not self.folders & {each, *each.parents}}:
            await self._watch(above, is_deep=False)

    async def changes(self) -> set[Path]:
        """Wait for changes; return the files that changed since the last call."""
        await self._wake.wait()
        # No `await` until the return: a change in between would lose its wake-up.
        self._wake.clear()
        found, self._changed = self._changed, set()
        return found

    def matters(self, path: Path) -> bool:
        """Return whether a change of the file is a reason to load the apps again."""
        if path in self.files:
            return True
        # The node itself writes there, which must not cause a reload.
        if self._data in path.parents and not self._holds_code:
            return False
        data_files = self._own.union(self._data_files())
        return any(is_part(path, folder, data_files) for folder in self.folders)

    async def _watch(self, places: set[Path], *, is_deep: bool) -> None:
        # Not needed by `serve`, and slow to import.
        from watchfiles import awatch

        async for found in awatch(
            *places,
            watch_filter=lambda _, name: self.matters(Path(name)),
            stop_event=self._stop,
            recursive=is_deep,
        ):
            self._changed.update(Path(name) for _, name in found)
            self._wake.set()


def settings_files(settings: Settings) -> frozenset[Path]:
    """Return every path of the settings file, whether it exists or not."""
    file = Path(settings.source or FILE_NAME)
    # Both: a symbolic link can change, or the file that it points to.
    return frozenset({file.absolute(), file.resolve()})


def names_of(paths: Iterable[Path]) -> str:
    """Return the names of the first few changed files."""
    # Editors create and remove temporary files at each save; those are left out where others remain.
    known = set(paths)
    found = sorted({path.name for path in known if path.exists()} or {path.name for path in known})
    more = f" and {len(found) - MAX_FILES:,} more" if len(found) > MAX_FILES else ""
    return ", ".join(found[:MAX_FILES]) + more


def folder_of(target: str) -> Path:
    """Return the folder that is watched for a target: a file's, the target itself, or the working directory for a module."""
    path = Path(target.partition(":")[0]).expanduser().resolve()
    if path.suffix == ".py":
        return path.parent
    return path if path.is_dir() else Path.cwd()


def _written_to() -> Iterator[Path]:
    """Files that the node itself writes to: a report of a reload there must not cause another one."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            yield Path(f"/proc/self/fd/{descriptor}").readlink()
