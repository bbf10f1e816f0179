"""Notifications of the kernel (inotify): when a folder has changed, and which files are being written.

In: the folders to watch. Out: a wake-up once there is something to be seen, the names of files that
have an open writer, and those that are known to be whole. Opening and writing do not wake the source; closing a
file does. It is only a hint when to look: what is there is read from the folder itself, so an event
that the kernel drops costs time, never a file.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from headrace.model.errors import Unavailable

# Python's standard library has no inotify; these are the constants of <sys/inotify.h>.
_IN_MODIFY, _IN_CLOSE_WRITE, _IN_CLOSE_NOWRITE, _IN_OPEN = 0x2, 0x8, 0x10, 0x20
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200
_IN_MOVE_SELF = 0x800
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ISDIR = 0x4000, 0x8000, 0x40000000
_IN_ONLYDIR, _IN_DONT_FOLLOW, _IN_EXCL_UNLINK = 0x1000000, 0x2000000, 0x4000000
_DONE: Final = _IN_CLOSE_WRITE | _IN_DELETE | _IN_MOVED_FROM | _IN_MOVED_TO
# EXCL_UNLINK: a writer of a file whose name was taken by another must not make the other look busy.
_MASK: Final = (
    _DONE | _IN_MODIFY | _IN_CREATE | _IN_OPEN | _IN_CLOSE_NOWRITE | _IN_ONLYDIR | _IN_EXCL_UNLINK
)
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES})
_HEAD: Final = struct.Struct("iIII")
_READ: Final = 64 << 10
# The machine's limit of watches is shared with the user's other programs.
MAX_FOLDERS: Final = 4_096


class Writing(Enum):
    """State of the writer of a file.

    A name that is made is `MADE`, once its maker has opened it `OPENED`, with the first byte
    `WRITTEN`, and `WHOLE` when a writer has closed it, or when it was renamed, replaced or deleted.
    """

    MADE = 1
    OPENED = 2
    WRITTEN = 3
    WHOLE = 4


class InotifyEvents(NamedTuple):
    """The kernel's last notification for a name; `number` differs with each."""

    writing: Writing
    number: int


class Inotify:
    """One inotify instance on the running loop. Owned by one source, which closes it."""

    def __init__(self, root: str) -> None:
        """Watch a folder.

        Raises:
            Unavailable: There is no inotify here, or the machine's limit is reached.
        """
        self._heard: dict[str, InotifyEvents] = {}
        self._unopened: set[str] = set()
        self._count = 0
        self._root = root
        self._folders: dict[int, str] = {}
        self._changed = asyncio.Event()
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            # NONBLOCK: it is read from the loop's callback, which must not wait.
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError) as error:
            raise Unavailable(f"there is no inotify here: {error}") from error
        if self._fd < 0:
            raise Unavailable(f"no inotify can be had: {os.strerror(ctypes.get_errno())}")
        try:
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        except (NotImplementedError, AttributeError) as error:
            os.close(self._fd)
            raise Unavailable("this event loop cannot wait for inotify") from error

    def watch(self, folders: set[str]) -> bool:
        """Watch exactly these folders, by path beneath the root; True where there are new ones.

        One that is not there any more is skipped: the next look will not find it either.

        Raises:
            Unavailable: The machine's limit is reached.
        """
        for number, folder in list(self._folders.items()):
            if folder not in folders:
                self._libc.inotify_rm_watch(self._fd, number)
                del self._folders[number]
        new = sorted(folders - set(self._folders.values()))[: MAX_FOLDERS - len(self._folders)]
        watched = False
        for folder in new:
            path = os.fsencode(Path(self._root) / folder)
            # A root that is moved away leaves its name, which is what we watch, to another.
            mask = _MASK | (_IN_DONT_FOLLOW if folder else _IN_MOVE_SELF)
            number = self._libc.inotify_add_watch(self._fd, path, mask)
            if number >= 0:
                self._folders[number] = folder
                watched = True
            # ENOSPC: the limit of watches. A part of the folders without hints would be slow
            # without a word.
            elif (why := ctypes.get_errno()) not in _GONE:
                raise Unavailable(f"`{path.decode(errors='replace')}`: {os.strerror(why)}")
        return watched

    async def wait(self) -> None:
        """Return once something has changed since the last time."""
        await self._changed.wait()
        self._changed.clear()

    def catch_up(self) -> Mapping[str, InotifyEvents]:
        """Take in what the kernel has said by now; what it said last, by path beneath the folder."""
        while self._take():
            pass
        return MappingProxyType(self._heard.copy())

    def forget(self, heard: Mapping[str, InotifyEvents], *, keep: Collection[str]) -> None:
        """Drop notifications of names whose changes are reported; keep those that are being written."""
        for name, known in heard.items():
            if name not in keep and self._heard.get(name) == known and not is_busy(known):
                del self._heard[name]

    def _read(self) -> None:
        self._take()

    def _take(self) -> bool:
        """Read notifications; False where there were none."""
        try:
            raw = os.read(self._fd, _READ)
        except BlockingIOError:
            return False
        at = 0
        while at < len(raw):
            number, mask, _, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            name = os.fsdecode(raw[at : at + length].rstrip(b"\x00"))
            at += length
            self._note(number, mask, name)
        if self._unopened:
            # Made and not opened, as a link is: no close will follow.
            self._unopened.clear()
            self._changed.set()
        return True

    def _note(self, number: int, mask: int, name: str) -> None:
        if mask & _IN_Q_OVERFLOW:
            # Closings may be among what was lost; from here on only a stable version counts.
            self._heard.clear()
            self._changed.set()
            return
        # The kernel has dropped the watch (the folder was deleted); it may give the number to
        # another.
        if mask & _IN_IGNORED:
            self._folders.pop(number, None)
            self._changed.set()
            return
        folder = self._folders.get(number)
        if folder is not None and mask & _IN_MOVE_SELF:
            self._leave("")
        if folder is None or not name:
            return
        if mask & _IN_ISDIR:
            if mask & _IN_MOVED_FROM:
                self._leave(f"{folder}/{name}" if folder else name)
            if mask & (_IN_CREATE | _DONE):
                self._changed.set()
            return
        self._note_file(f"{folder}/{name}" if folder else name, mask)

    def _leave(self, moved: str) -> None:
        """Watch a folder that was moved no more, nor what is beneath it: what has its name is another."""
        beneath = f"{moved}/" if moved else ""
        for number, folder in list(self._folders.items()):
            if folder == moved or folder.startswith(beneath):
                self._libc.inotify_rm_watch(self._fd, number)
                del self._folders[number]
        self._heard = {
            name: heard for name, heard in self._heard.items() if not name.startswith(beneath)
        }
        self._changed.set()

    def _note_file(self, path: str, mask: int) -> None:
        known = self._heard.get(path)
        now = None if known is None else known.writing
        if mask & _IN_CREATE:
            self._unopened.add(path)
            self._hear(path, Writing.MADE)
        elif mask & _IN_OPEN:
            # The process that makes a file opens it next; what others open is not being written yet.
            if now is Writing.MADE:
                self._unopened.discard(path)
                self._hear(path, Writing.OPENED)
        elif mask & _IN_MODIFY:
            if now is not Writing.WRITTEN:
                self._hear(path, Writing.WRITTEN)
        elif mask & _DONE:
            self._hear(path, Writing.WHOLE, wake=True)
        elif now is Writing.OPENED:
            # Its maker has closed it without writing, or a reader has closed it before the maker wrote.
            self._hear(path, Writing.MADE, wake=True)

    def _hear(self, path: str, writing: Writing, *, wake: bool = False) -> None:
        self._count += 1
        self._heard[path] = InotifyEvents(writing, self._count)
        if wake:
            self._changed.set()

    def close(self) -> None:
        """Let go; safe to call twice."""
        # The reader goes before the descriptor: the number may be another file's right after the
        # close.
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def is_busy(heard: InotifyEvents) -> bool:
    """Return True while the file is open for writing."""
    return heard.writing in {Writing.OPENED, Writing.WRITTEN}


def busy_and_whole(
    before: Mapping[str, InotifyEvents], after: Mapping[str, InotifyEvents]
) -> tuple[set[str], set[str]]:
    """Files that are being written, and those that were whole before a look and untouched until after it."""
    busy = {name for heard in (before, after) for name, known in heard.items() if is_busy(known)}
    whole = {
        name
        for name, known in before.items()
        if known.writing is Writing.WHOLE and after.get(name) == known
    }
    return busy, whole
