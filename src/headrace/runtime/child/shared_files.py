"""Files that instances with uids of their own share: what one makes, the next one must be able to write.

The folder has a group of theirs and hands it on, and the zygote's umask leaves the group its rights.
Two ways of making files ask for less than that whatever the umask is: SQLite makes a database with
0644, and `tempfile` files with 0600, which are then renamed to their place. The interpreter announces both
before they happen (audit hooks), and are given the mode that others need.
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
    """See to the modes of what is made beneath the folder, in this process and all it forks."""
    inside = f"{folder}{os.sep}"

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect":
            _make_database(arguments[0], inside)
        elif event == "os.rename":
            _open_to_group(arguments[0], arguments[1], inside)

    sys.addaudithook(hear)


def database_file(database: object) -> str | None:
    """The file of a database that `sqlite3.connect` gets; None if it must not be created."""
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
    # Only what is not there: to close any descriptor of a database lets go of this process's locks on it.
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
        mode = stat.S_IMODE(os.stat(source).st_mode)  # noqa: PTH116 - as above
        os.chmod(source, mode | (mode & 0o700) >> 3)  # noqa: PTH101 - as above
