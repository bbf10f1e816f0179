"""Every page of the file ends with a checksum, so that a bit the disk has changed is never read.

SQLite's own file layer for that (`cksumvfs`, which comes with apsw) computes it when a page is
written and compares it when a page is read from the disk: 8 bytes in each page, nothing per row, and
a lost or moved row is found as well as a changed one. Here it is loaded, laid under a file, and what
it and SQLite report of damaged bytes is distinguished from a disk that fails.
"""

from __future__ import annotations

import ctypes
import logging
from contextlib import closing
from pathlib import Path

import apsw
from apsw import sqlite_extra

from headrace.model.errors import Corrupt, DiskFull, HeadraceError, Refused, Unavailable

RESERVED_BYTES = 8
CHECKED_FORM = 3
"""From this form of the file on, every page has its checksum."""

_LAYER = "cksmvfs"
_log = logging.getLogger(__name__)


def load_layer() -> None:
    """Put the file layer under every connection that is opened from now on.

    Raises:
        Refused: This apsw came without it.
    """
    # Registering it twice would lay it under itself.
    if _LAYER in apsw.vfs_names():
        return
    try:
        # The extension is loaded through a connection, and stays registered for the process once
        # it closes.
        with closing(apsw.Connection(":memory:")) as connection:
            sqlite_extra.load(connection, "cksumvfs")
    except (LookupError, sqlite_extra.NotAvailable, apsw.Error) as error:
        raise Refused(
            "this apsw came without SQLite's `cksumvfs`, so a damaged page could not be distinguished from a "
            "good one; install apsw from its wheel, which brings it"
        ) from error


def protect(connection: apsw.Connection, path: Path) -> None:
    """Have every page checked: a new file from its first, an older one after it is rewritten once.

    Raises:
        Corrupt: The file ought to have checksums, and says it has none.
        DiskFull: The disk has no space to rewrite it.
    """
    form = int(connection.pragma("user_version"))
    # Reserved bytes are fixed when the first page is written; later only VACUUM changes them.
    if int(connection.pragma("page_count")) == 0:
        _reserve(connection, RESERVED_BYTES)
        return
    if _reserve(connection, -1) == RESERVED_BYTES:
        return
    # The layer trusts the head's count of reserved bytes: a flipped bit there would switch it off
    # silently.
    if form >= CHECKED_FORM:
        raise Corrupt(
            f"the file `{path}` is damaged: its head says that its pages have no checksums, which "
            "they have; restore a copy"
        )
    _log.info("rewriting `%s` once, so that every page gets a checksum", path)
    _reserve(connection, RESERVED_BYTES)
    try:
        connection.execute("VACUUM").fetchall()
    except apsw.FullError as error:
        raise DiskFull(
            f"the file `{path}` is rewritten once for this version, and the disk is full; free as "
            "much space as the file has and start again, nothing of it was changed"
        ) from error


def is_damage(error: Exception) -> bool:
    """Return True where the bytes are wrong; False where the disk could not be read."""
    return isinstance(error, apsw.CorruptError | apsw.NotADBError) or (
        isinstance(error, apsw.IOError)
        # What the checksum layer returns for a page that does not match; other I/O errors come
        # from the disk.
        and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA
    )


def read_error(error: apsw.Error, path: Path) -> HeadraceError:
    """Translate a failed read into the error that its caller gets."""
    if is_damage(error):
        how = "a page does not match its checksum" if isinstance(error, apsw.IOError) else error
        return Corrupt(f"the file `{path}` is damaged: {how}; restore a copy")
    return Unavailable(f"the file `{path}` cannot be read now: {type(error).__name__}: {error}")


def _reserve(connection: apsw.Connection, wanted: int) -> int:
    """Ask for so many bytes at each page's end (below 0: only look); how many there were."""
    number = ctypes.c_int(wanted)
    connection.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(number))
    return number.value
