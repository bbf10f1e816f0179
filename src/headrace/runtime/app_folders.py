"""The folders in which apps keep files of their own, on the host's side.

In come targets and apps' names, out come folders beneath one root. Where instances have uids of their
own they share their app's folder by a group of its own: derived from where the node and
its target are, so that it stays over restarts; a folder that has another group (the app moved, or the
folder was restored from a copy) is given to the new one with all it holds. Who may not change ids has
no groups: there a folder is the host's user's.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from zlib import crc32

import msgspec

from headrace.model.errors import denied
from headrace.runtime.sandbox.isolation import OWN_MODE

FILES = "files"
"""Of the data folder: where apps have their folders."""
GROUPS = 1 << 20
ROOT_MODE = 0o711
"""Instances pass through it to the folder of their app, and see no other's name."""
SHARED_MODE = 0o2770
"""What is made in there is the group's."""


class FolderShare(msgspec.Struct, frozen=True):
    """Location of app files for a zygote: the common root, and the group of its instances."""

    root: str
    group: int


class AppFolders:
    """The folders of a node's apps. Owned by the fleet.

    Args:
        root: Where they are.
        first: The first of the numbers that are groups.
    """

    def __init__(self, root: Path, *, first: int) -> None:
        self._root = root.resolve()
        self._first = first
        self._groups: dict[str, int] = {}

    def share(self, target: str) -> FolderShare:
        """The root, which is there from then on, and the group of the target's instances.

        Raises:
            DiskFull, Unavailable: The root cannot be made.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=ROOT_MODE)
        except OSError as error:
            raise denied(f"the folder `{self._root}` cannot be made", error) from error
        return FolderShare(str(self._root), self._group(target))

    def _group(self, target: str) -> int:
        taken = set(self._groups.values())
        if target not in self._groups:
            at = crc32(f"{self._root}\0{target}".encode("utf-8", "surrogateescape"))
            while (group := self._first + at % GROUPS) in taken:
                at += 1
            self._groups[target] = group
        return self._groups[target]

    def give(self, app: str, target: str, *, shared: bool) -> None:
        """Make the app's folder where it is not there, and see that its instances may use all of it.

        Args:
            app: The app's name.
            target: What it is imported from.
            shared: Whether its instances have uids of their own.

        Raises:
            DiskFull, Unavailable: The folder cannot be made, or given to them.
        """
        folder = self._root / app
        mode, owner = OWN_MODE, (os.geteuid(), os.getegid())
        if shared:
            mode, owner = SHARED_MODE, (-1, self._group(target))
        try:
            folder.mkdir(mode=OWN_MODE, exist_ok=True)
            found = folder.stat()
            has = found.st_gid if shared else found.st_uid
            if has == owner[shared] and stat.S_IMODE(found.st_mode) == mode:
                return
            for _, folders, files, descriptor in os.fwalk(folder):
                for name in (*folders, *files):
                    _hand_over(name, descriptor, owner)
            # Last, so that an interrupted change is done again.
            os.chown(folder, *owner)
            folder.chmod(mode)
        except OSError as error:
            raise denied(f"the folder `{folder}` cannot be given to `{app}`", error) from error


def _hand_over(name: str, within: int, owner: tuple[int, int]) -> None:
    """Change the owner of a file or folder, whose group then may do what its user may."""
    with contextlib.suppress(FileNotFoundError):
        os.chown(name, *owner, dir_fd=within, follow_symlinks=False)
        kind = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return
        # Held, so that its mode is what is changed and never that of what took its place.
        held = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
        try:
            mode = stat.S_IMODE(os.fstat(held).st_mode)
            shared = mode | (mode & 0o700) >> 3 | (stat.S_ISGID if stat.S_ISDIR(kind) else 0)
            os.fchmod(held, shared)
        finally:
            os.close(held)
