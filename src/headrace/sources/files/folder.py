"""Files of a folder: every regular file beneath it, by name, with its version.

The folder is held open and everything is reached from it, so that no path leads out of it; symbolic
links are skipped. Reading a large folder yields to other tasks as it goes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from fnmatch import translate
from pathlib import Path
from re import compile as compile_pattern
from typing import Final, NamedTuple, Protocol

from headrace.environment.clock import Clock
from headrace.model.errors import Misuse, Unavailable
from headrace.model.triggers.files import MAX_FILES, Files

# Each level holds a descriptor open during a look.
MAX_DEPTH: Final = 64
_BREATH: Final = 500
_LATEST: Final = (1 << 63) - 1
# It has gone, or has become a link, while we looked.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# A file that has become a pipe must not be waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileVersion(NamedTuple):
    """A file's state; another one means that there is something else to read.

    Attributes:
        size: In bytes.
        modified: When it last changed, in nanoseconds since the epoch.
        tag: A local file's inode, a stored object's entity tag.
    """

    size: int
    modified: int
    tag: int | str


def version_of(status: os.stat_result) -> FileVersion:
    """The version of a local file."""
    # Some file systems keep any time, and more than a row can hold.
    modified = max(-_LATEST, min(status.st_mtime_ns, _LATEST))
    return FileVersion(status.st_size, modified, status.st_ino)


def shown_path(path: str) -> str:
    """A watched folder as errors show it: whole, and what a relative one counts from."""
    if Path(path).is_absolute():
        return f"`{path}`"
    return f"`{Path(path).absolute()}` (`{path}`, from the folder where the node was started)"


class WatchedFolder(Protocol):
    """A place with files, read again and again.

    Attributes:
        folders: The folders found by the latest look, by path ("" is the place itself).
        closed: Folders that it found and was not let into: of what is in them nothing is known.
    """

    folders: set[str]
    closed: set[str]

    def includes(self, name: str) -> bool:
        """Return True where the trigger means the file."""
        ...

    async def look(self) -> dict[str, FileVersion]:
        """Every file that is meant, by its path beneath the place.

        Raises:
            Unavailable: It cannot be read now.
            Misuse: It holds more files than can be watched.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; a later look makes new ones."""
        ...


class Folder:
    """The folder of one trigger, looked at again and again.

    Attributes:
        folders: The folders found by the latest look, by path ("" is the folder itself).
        closed: Folders within that it found and was not let into.
    """

    def __init__(self, trigger: Files, clock: Clock) -> None:
        self._trigger = trigger
        self._clock = clock
        self._matches = compile_pattern(translate(trigger.glob)).fullmatch
        self.folders: set[str] = {""}
        self.closed: set[str] = set()

    def includes(self, name: str) -> bool:
        """Return True where the trigger means the file, by its name (with `recursive`, its path)."""
        return self._matches(name) is not None

    async def look(self) -> dict[str, FileVersion]:
        """Every file that is meant, by its path beneath the folder.

        Raises:
            Unavailable: The folder cannot be read now.
            Misuse: It holds more files than can be watched.
        """
        found: dict[str, FileVersion] = {}
        try:
            # Links in the folder's own path are followed: the author chose it.
            root = os.open(self._trigger.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        self.folders = {""}
        self.closed = set()
        try:
            count = 0
            async for name, version in self._walk(root, "", 0):
                found[name] = version
                count += 1
                if count > MAX_FILES:
                    raise Misuse(
                        f"`{self._trigger.path}` holds over {MAX_FILES:,} files that match; "
                        "narrow `glob=`, or move what is done elsewhere"
                    )
        finally:
            os.close(root)
        return found

    def open(self, name: str) -> int | None:
        """A descriptor to read a file by, to be closed; None where it has gone, or is a link by now.

        Raises:
            Unavailable: It cannot be read now.
        """
        *within, last = name.split("/")
        try:
            folder = os.open(self._trigger.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for each in within:
                    # Step by step with O_NOFOLLOW: a link anywhere in the path could lead out of
                    # the folder.
                    inner = os.open(each, _FOLDER, dir_fd=folder)
                    os.close(folder)
                    folder = inner
                return os.open(last, _FILE, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise Unavailable(
                f"`{name}` in `{self._trigger.path}` cannot be read: {error.strerror}; let the "
                "node's user read it, or have `glob=` leave it out"
            ) from error

    async def close(self) -> None:
        """Nothing is held between two looks."""

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the folder {shown_path(self._trigger.path)} cannot be read: {error.strerror}; "
            "create it, or let the node's user read it"
        )

    async def _walk(
        self, folder: int, prefix: str, depth: int
    ) -> AsyncIterator[tuple[str, FileVersion]]:
        inner: list[str] = []
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                # So that requests are served while a large folder is read.
                if count % _BREATH == _BREATH - 1:
                    await self._clock.sleep(0)
                # From the directory entry itself: no system call for each file that does not
                # match.
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
                    continue
                name = prefix + entry.name
                if not self.includes(name) or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                # Deleted since it was listed.
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    # Files of the folder itself that cannot be read are an error to report; a
                    # closed subfolder may be meant.
                    if not prefix:
                        raise self._unreadable(error) from error
                    self.closed.add(prefix[:-1])
                    continue
                yield name, version_of(status)
        if not self._trigger.recursive or depth >= MAX_DEPTH:
            return
        for each in sorted(inner):
            try:
                child = os.open(each, _FOLDER, dir_fd=folder)
            except PermissionError:
                self.closed.add(f"{prefix}{each}")
                continue
            except OSError as error:
                if error.errno in _GONE:
                    continue
                # Such as too many open files: what is not seen now is not gone.
                raise self._unreadable(error) from error
            self.folders.add(f"{prefix}{each}")
            try:
                async for found in self._walk(child, f"{prefix}{each}/", depth + 1):
                    yield found
            finally:
                os.close(child)
