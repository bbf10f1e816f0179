"""Opening the data folder: the lock, the SQLite version, the settings, the migrations.

Comes in: a folder. Goes out: a `DataFile` with one connection that writes, one that reads and one
that checkpoints. Refuses a folder another process holds, a SQLite with the WAL-reset bug, and a
file written by a newer Headrace. Damaged bytes are `Corrupt`: nothing is opened over them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path

import apsw

from headrace.model.errors import DISK_FULL, DiskFull, Locked, Misuse, Refused, denied
from headrace.storage.kv.sqlite.page_checksums import is_damage, load_layer, protect, told
from headrace.storage.kv.sqlite.wal_check import check_log

OLDEST_SQLITE = (3, 51, 3)
FILE_NAME = "headrace.db"
LOCK_NAME = "headrace.lock"
PAGE_BYTES = 4096
JOURNAL_LIMIT_BYTES = 64 << 20
LEAST_ROOM_BYTES = 256 << 10
"""What an open file needs beside it, at most: an index of its write-ahead log, and its first pages."""
FOLDER_MODE = 0o711
"""Other users pass through to what instances have in there, and list nothing."""
FILE_MODE = 0o600
_log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "sql"
STORES = 4
"""The form from which on a row of state belongs to a store."""


def run(connection: apsw.Connection, script: str) -> None:
    """Run a script to its end; apsw stops at the first row unless somebody asks for the next."""
    for _ in connection.execute(script):
        pass


class DataFile:
    """The open file and its lock. Owned by the storage, which is its only user."""

    def __init__(self, folder: Path, *, vfs: str | None = None) -> None:
        """Lock `folder` and open the file in it.

        Raises:
            Locked: Another process holds the folder.
            Refused: The linked SQLite is too old.
            Misuse: The folder cannot be used, or holds a newer file.
            Corrupt: The file is damaged.
            DiskFull: There is no room to open it.
            Unavailable: The disk does not give it back.
        """
        _check_version(apsw.sqlite_lib_version())
        load_layer()
        self.folder = folder
        self.path = folder / FILE_NAME
        self._vfs = vfs
        self._lock = _take_lock(folder)
        try:
            _make(self.path)
            self.writer = self._open()
            self._prepare(self.writer)
            migrate(self.writer, folder)
            self.reader = self._connect()
            self.reader.execute("PRAGMA query_only = ON").fetchall()
            self.checkpointer = self._connect()
        except apsw.Error as error:
            os.close(self._lock)
            if not (is_damage(error) or _has_room(folder)):
                raise DiskFull(
                    f"the file `{self.path}` cannot be opened: the disk has no room for what goes "
                    "beside it; free some space, what was acknowledged is safe"
                ) from error
            raise told(error, self.path) from error
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), vfs=self._vfs, statementcachesize=200)
        connection.set_busy_timeout(5_000)
        self._look_at_log(connection)
        protect(connection, self.path)
        return connection

    def _look_at_log(self, connection: apsw.Connection) -> None:
        """Before anything is written: a damaged log has to stay as it is."""
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("user_version")
        recovered, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        check_log(
            self.path.with_name(f"{FILE_NAME}-wal"),
            recovered=max(recovered, 0),
            page_bytes=PAGE_BYTES,
        )
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), vfs=self._vfs, statementcachesize=200)
        connection.set_busy_timeout(5_000)
        return self._prepare(connection)

    def _prepare(self, connection: apsw.Connection) -> apsw.Connection:
        run(
            connection,
            f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            f"PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES};"
            "PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
        )
        return connection

    def reusable_bytes(self) -> int:
        """How much of the file is free to be written again."""
        return int(self.reader.pragma("freelist_count")) * PAGE_BYTES

    def close(self) -> None:
        """Empty the write-ahead log into the file and let go of everything."""
        for connection in (self.reader, self.checkpointer, self.writer):
            connection.close()
        os.close(self._lock)


def _has_room(folder: Path) -> bool:
    """Whether a small file could be made here; SQLite says of a full disk only that it failed."""
    found = os.statvfs(folder)
    is_out_of_files = found.f_files > 0 and found.f_favail == 0
    return found.f_bavail * found.f_frsize >= LEAST_ROOM_BYTES and not is_out_of_files


def _check_version(found: str) -> None:
    if tuple(int(part) for part in found.split(".")) < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise Refused(
            f"SQLite {found} can corrupt a write-ahead log when it is reset; install "
            f"`apsw>={oldest}`, which brings a SQLite of its own"
        )


def _make(path: Path) -> None:
    """See to it that the file is there, for its owner alone; its log is made so by SQLite.

    Raises:
        Unavailable: It cannot be made or opened; `DiskFull` where there is no room for it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        raise denied(f"the file `{path}` cannot be opened", error) from error


def _take_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        _close_to_others(folder)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise denied(f"the data folder `{folder}` cannot be used", error) from error
        raise Misuse(
            f"the data folder `{folder}` cannot be used: {error.strerror}; "
            "choose a folder this user may write"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise Locked(
            f"the data folder `{folder}` is in use by process {holder}; "
            "stop that node, or give this one another folder"
        ) from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(handle)
        raise denied(f"the data folder `{folder}` cannot be used", error) from error
    return handle


def _close_to_others(folder: Path) -> None:
    """Take from other users what is in the folder, whoever made it and with whatever mask.

    A folder that held other things before it was ours keeps its own mode, save that nobody else may write there.
    """
    mode = folder.stat().st_mode
    if (folder / FILE_NAME).exists() or not any(folder.iterdir()):
        wanted = FOLDER_MODE
    else:
        wanted = mode & ~0o022
    if stat.S_IMODE(mode) != wanted:
        folder.chmod(wanted)
    for file in folder.iterdir():
        if file.name.startswith("headrace.") and file.is_file() and not file.is_symlink():
            file.chmod(FILE_MODE)


def migrate(connection: apsw.Connection, folder: Path) -> None:
    """Bring the file up to this version's tables, one numbered script at a time.

    Raises:
        Misuse: The file was written by a newer version.
    """
    scripts = sorted(MIGRATIONS.glob("[0-9]*.sql"))
    done = int(connection.pragma("user_version"))
    if done > len(scripts):
        raise Misuse(
            f"the data in `{folder}` was written by a newer Headrace (form {done}; this one knows "
            f"{len(scripts)}); upgrade, or restore an older copy"
        )
    for number, script in enumerate(scripts[done:], start=done + 1):
        run(
            connection,
            f"BEGIN IMMEDIATE; {script.read_text()} PRAGMA user_version = {number}; COMMIT;",
        )
    if 0 < done < STORES and connection.execute("SELECT 1 FROM state LIMIT 1").fetchall():
        _log.warning(
            "each function now has a state of its own: what the functions of an app shared in `%s` is "
            'the app\'s store `state`; declare it with `app.store("state")` and open it with '
            "`context.store(...)`",
            folder,
        )
