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
from headrace.storage.kv.sqlite.page_checksums import is_damage, load_layer, protect, read_error
from headrace.storage.kv.sqlite.wal_check import check_log

# Before it, resetting a write-ahead log could corrupt the file.
OLDEST_SQLITE = (3, 51, 3)
FILE_NAME = "headrace.db"
LOCK_NAME = "headrace.lock"
PAGE_BYTES = 4096
JOURNAL_LIMIT_BYTES = 64 << 20
LEAST_FREE_BYTES = 256 << 10
"""The disk space that opening needs at most: an index of the write-ahead log, and its first pages."""
FOLDER_MODE = 0o711
"""Other users pass through to what instances have in there, and list nothing."""
FILE_MODE = 0o600
_log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "sql"
STORES = 4
"""The form from which on a row of state belongs to a store."""


def run(connection: apsw.Connection, script: str) -> None:
    """Run a script to its end; apsw stops at the first row until the next is fetched."""
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
            DiskFull: The disk has no space to open it.
            Unavailable: The disk does not give it back.
        """
        # The library in use, not the one apsw was compiled for: a system SQLite may have been
        # loaded instead.
        _check_version(apsw.sqlite_lib_version())
        load_layer()
        self.folder = folder
        self.path = folder / FILE_NAME
        self._vfs = vfs
        # Before the file is opened: even opening runs recovery, which writes.
        self._lock = _take_lock(folder)
        try:
            _make(self.path)
            self.writer = self._open()
            self._prepare(self.writer)
            migrate(self.writer, folder)
            self.reader = self._connect()
            # A reader that wrote by mistake would bypass the group commit and the cache of rows.
            self.reader.execute("PRAGMA query_only = ON").fetchall()
            # A connection is used by one thread at a time, and checkpoints run on one of their own
            # thread.
            self.checkpointer = self._connect()
        except apsw.Error as error:
            os.close(self._lock)
            if not (is_damage(error) or _has_space(folder)):
                raise DiskFull(
                    f"the file `{self.path}` cannot be opened: the disk has no space for its "
                    "write-ahead log and index; free some space, what was acknowledged is safe"
                ) from error
            raise read_error(error, self.path) from error
        # A flock lasts as long as the descriptor: left open, a second try in this process would
        # find the folder in use.
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
        # Closing a connection would otherwise copy the log into the file and delete it, damaged as
        # it is.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # The first read makes SQLite recover the log; before it the counts of the checkpoint are
        # unknown.
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
            # FULL: an acknowledged commit is fsynced; with NORMAL most simulated power cuts lost
            # acknowledged events.
            f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            # A log that has been long is truncated to the limit; a negative cache size is in KiB
            # (16 MiB).
            f"PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES};"
            "PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
        )
        return connection

    def reusable_bytes(self) -> int:
        """Bytes of the file that are free to be written again."""
        return int(self.reader.pragma("freelist_count")) * PAGE_BYTES

    def close(self) -> None:
        """Empty the write-ahead log into the file and let go of everything."""
        # The writer last: the last connection to close copies the log into the file.
        for connection in (self.reader, self.checkpointer, self.writer):
            connection.close()
        os.close(self._lock)


def _has_space(folder: Path) -> bool:
    """Return True where a small file can be made; SQLite reports a full disk as a plain I/O error."""
    found = os.statvfs(folder)
    # Some file systems (btrfs) count no inodes and report 0 for both.
    is_out_of_files = found.f_files > 0 and found.f_favail == 0
    return found.f_bavail * found.f_frsize >= LEAST_FREE_BYTES and not is_out_of_files


def _check_version(found: str) -> None:
    if tuple(int(part) for part in found.split(".")) < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise Refused(
            f"SQLite {found} can corrupt a write-ahead log when it is reset; install "
            f"`apsw>={oldest}`, which contains its own SQLite"
        )


def _make(path: Path) -> None:
    """See to it that the file is there, for its owner alone; its log is made so by SQLite.

    Raises:
        Unavailable: It cannot be made or opened; `DiskFull` where the disk is full.
    """
    try:
        # SQLite gives `-wal` and `-shm` the mode of the main file, so it is created with its final
        # mode.
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
        # flock, not fcntl's record locks: those are lost when any descriptor of the file in this
        # process is closed.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        # Only for the message: the lock decides, so a stale number does no harm.
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise Locked(
            f"the data folder `{folder}` is in use by process {holder}; "
            "stop that node, or give this one another folder"
        ) from error
    try:
        # Written after the lock is held, so the number in the file is that of the holder (or of
        # one that has crashed).
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(handle)
        raise denied(f"the data folder `{folder}` cannot be used", error) from error
    return handle


def _close_to_others(folder: Path) -> None:
    """Make the folder's files unreadable for other users, whatever mask they were created with.

    A folder that held other things before it was ours keeps its own mode, except that no other user may write there.
    """
    mode = folder.stat().st_mode
    if (folder / FILE_NAME).exists() or not any(folder.iterdir()):
        wanted = FOLDER_MODE
    else:
        wanted = mode & ~0o022
    if stat.S_IMODE(mode) != wanted:
        folder.chmod(wanted)
    for file in folder.iterdir():
        # Symbolic links are left out: chmod follows them, to a file outside of the folder.
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
            # One transaction with its number: a crash between them would run the script twice.
            f"BEGIN IMMEDIATE; {script.read_text()} PRAGMA user_version = {number}; COMMIT;",
        )
    if 0 < done < STORES and connection.execute("SELECT 1 FROM state LIMIT 1").fetchall():
        _log.warning(
            "each function now has a separate state: what the functions of an app shared in `%s` is "
            'the app\'s store `state`; declare it with `app.store("state")` and open it with '
            "`context.store(...)`",
            folder,
        )
