"""Modes of files that instances with separate uids share: the next instance must be able to write them.

The folder has a group for them and passes it on (setgid), and the zygote's umask keeps the group's
rights. Two ways to create files need more than the umask: SQLite creates a database with 0644, and
`tempfile` creates files with 0600, which are then renamed to their place. The interpreter announces
both by audit events before they happen, and this module then sets the mode that other instances
need.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Any

UMASK = 0o002
_FILE_MODE = 0o660


def share(folder: str) -> None:
    """Set the modes of files created below the folder, in this process and its forks."""
    inside = f"{folder}{os.sep}"

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect":
            _make_database(arguments[0], inside)
        elif event == "os.rename":
            _open_to_group(arguments[0], arguments[1], inside)

    # An audit hook cannot be removed and costs every audited call, so only apps that use their
    # folder install it.
    sys.addaudithook(hear)


def database_file(database: object) -> str | None:
    """Return the file of a database for `sqlite3.connect`; None if it must not be created."""
    if not isinstance(database, (str, bytes, os.PathLike)):
        return None
    name = os.fsdecode(database)
    if not name.startswith("file:"):
        return name
    from urllib.parse import parse_qs, unquote, urlsplit

    parts = urlsplit(name)
    modes = parse_qs(parts.query).get("mode", ["rwc"])
    return unquote(parts.path) if modes[-1] == "rwc" else None


def _make_database(database: object, inside: str) -> None:
    name = database_file(database)
    if name is None or not os.path.abspath(name).startswith(inside):  # noqa: PTH100 - a string is what there is
        return
    # Only a new file: closing any descriptor of a database drops all POSIX locks of this process
    # on it. `O_EXCL` makes this one of them.
    with contextlib.suppress(OSError, ValueError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE))


def _open_to_group(source: object, target: object, inside: str) -> None:
    if not isinstance(source, (str, bytes, os.PathLike)):
        return
    if not isinstance(target, (str, bytes, os.PathLike)):
        return
    if not os.path.abspath(os.fsdecode(target)).startswith(inside):  # noqa: PTH100 - as above
        return
    with contextlib.suppress(OSError, ValueError):
        # Before the rename, so that no other instance sees the file without its group's rights.
        mode = stat.S_IMODE(os.stat(source).st_mode)  # noqa: PTH116 - as above
        os.chmod(source, mode | (mode & 0o700) >> 3)  # noqa: PTH101 - as above
