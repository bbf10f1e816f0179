"""A copy of the data file while a node writes to it.

SQLite's backup reads one committed state: what was acknowledged before it began is in the copy, what
comes meanwhile is not, and no writer waits. Pages keep their checksums.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from headrace.model.errors import DiskFull, Misuse, denied
from headrace.storage.kv.sqlite.data_folder import FILE_MODE, FILE_NAME
from headrace.storage.kv.sqlite.page_checksums import load_layer, read_error

_BUSY_MS = 5_000


def back_up(folder: Path, target: Path) -> int:
    """Copy the data file of `folder` to `target`; the copy's bytes.

    The file appears under its name once it is whole, checked and on the disk.

    Raises:
        Misuse: There is no data file, or `target` exists already.
        Corrupt: The data file is damaged.
        DiskFull: The disk has no space for the copy.
        Unavailable: The disk does not give the file back, or the copy cannot be written.
    """
    source = folder / FILE_NAME
    if not source.is_file():
        raise Misuse(f"`{source}` is not there; name the node's data folder with `--data`")
    if target.exists():
        raise Misuse(f"`{target}` exists already; name a new file for the backup")
    # A backup that breaks off must not look like one: the final name appears by rename only.
    whole = target.with_name(f"{target.name}.part")
    load_layer()
    try:
        whole.unlink(missing_ok=True)
        # SQLite would create it with the umask's mode, readable by other users.
        os.close(os.open(whole, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        try:
            _copy(source, whole)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        # The data before the name: after a power cut a name without its bytes would be an empty
        # backup.
        _sync(whole)
        whole.replace(target)
        # A rename is durable only once its directory is.
        _sync(target.parent)
        return target.stat().st_size
    except apsw.FullError as error:
        raise DiskFull(
            f"`{target}` cannot be written: the disk is full; free some space"
        ) from error
    except apsw.Error as error:
        raise read_error(error, source) from error
    except OSError as error:
        raise denied(f"`{target}` cannot be written", error) from error


def _copy(source: Path, target: Path) -> None:
    read = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    written = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # A node that checkpoints holds locks for moments; without a timeout the copy would fail at
        # once.
        read.set_busy_timeout(_BUSY_MS)
        with written.backup("main", read, "main") as backup:
            # All pages in one step: with several, a commit between them makes SQLite start the
            # copy again.
            backup.step()
        # The copy is one file: it has no write-ahead log until a node opens it.
        written.pragma("journal_mode", "delete")
        # The copy is checked, not the original: what matters is whether a restore will work.
        for (found,) in written.execute("PRAGMA quick_check(1)"):
            if found != "ok":
                raise apsw.CorruptError(found)
    finally:
        written.close()
        read.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
