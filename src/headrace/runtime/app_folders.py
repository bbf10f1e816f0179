"""Folders of apps for their files, on the host's side.

In: targets and app names. Out: folders below one root. Instances with separate uids share their app's folder by a
group. Its number is derived from the paths of the node and the target, so that it stays the same over restarts. A
folder with another group (the app moved, or the folder was restored from a copy) is changed to the new group with all
its files. Without root there are no groups, and the folder belongs to the host's user.
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
"""The folder, in the data folder, that holds the folders of apps."""
GROUPS = 1 << 20
ROOT_MODE = 0o711
"""Instances pass through it to the folder of their app, and cannot list other apps."""
SHARED_MODE = 0o2770
"""Setgid, so that new files belong to the folder's group."""


class FolderShare(msgspec.Struct, frozen=True):
    """Location of app files for a zygote: the common root, and the group of its instances."""

    root: str
    group: int


class AppFolders:
    """The folders of a node's apps. Owned by the fleet.

    Args:
        root: Their common parent.
        first: The first number of the range of groups.
    """

    def __init__(self, root: Path, *, first: int) -> None:
        self._root = root.resolve()
        self._first = first
        self._groups: dict[str, int] = {}

    def share(self, target: str) -> FolderShare:
        """Create the root if necessary; return it with the group of the target's instances.

        Raises:
            DiskFull, Unavailable: The root cannot be created.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=ROOT_MODE)
        except OSError as error:
            raise denied(f"the folder `{self._root}` cannot be made", error) from error
        return FolderShare(str(self._root), self._group(target))

    def _group(self, target: str) -> int:
        taken = set(self._groups.values())
        if target not in self._groups:
            # From the paths rather than a stored number: a data folder that is restored from a
            # copy then has no stale number.
            at = crc32(f"{self._root}\0{target}".encode("utf-8", "surrogateescape"))
            # Two targets may have the same checksum; their groups must differ.
            while (group := self._first + at % GROUPS) in taken:
                at += 1
            self._groups[target] = group
        return self._groups[target]

    def give(self, app: str, target: str, *, shared: bool) -> None:
        """Create the app's folder if necessary, and give its instances access to all its files.

        Args:
            app: The app's name.
            target: The target that it is imported from.
            shared: Whether its instances have separate uids.

        Raises:
            DiskFull, Unavailable: The folder cannot be made, or given to them.
        """
        folder = self._root / app
        mode, owner = OWN_MODE, (os.geteuid(), os.getegid())
        if shared:
            mode, owner = SHARED_MODE, (-1, self._group(target))
        try:
            # Created closed, and opened last: until then no instance of another group may enter.
            folder.mkdir(mode=OWN_MODE, exist_ok=True)
            found = folder.stat()
            has = found.st_gid if shared else found.st_uid
            if has == owner[shared] and stat.S_IMODE(found.st_mode) == mode:
                return
            for _, folders, files, descriptor in os.fwalk(folder):
                for name in (*folders, *files):
                    _hand_over(name, descriptor, owner)
            # Last: the folder's group marks a complete change, so an interrupted one is repeated.
            os.chown(folder, *owner)
            folder.chmod(mode)
        except OSError as error:
            raise denied(f"the folder `{folder}` cannot be given to `{app}`", error) from error


def _hand_over(name: str, within: int, owner: tuple[int, int]) -> None:
    """Change the owner of a file or folder, and give its group the rights of its user."""
    with contextlib.suppress(FileNotFoundError):
        os.chown(name, *owner, dir_fd=within, follow_symlinks=False)
        kind = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return
        # By descriptor and without following links: an instance could otherwise swap the file for
        # a link to one of the host's.
        held = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
        try:
            mode = stat.S_IMODE(os.fstat(held).st_mode)
            shared = mode | (mode & 0o700) >> 3 | (stat.S_ISGID if stat.S_ISDIR(kind) else 0)
            os.fchmod(held, shared)
        finally:
            os.close(held)
