"""Moving the write-ahead log into the file, before it grows.

The bulk is copied on the disk thread while commits go on; when what is left is little, the rest is
copied between two commits, so that the next commit starts the write-ahead log from its beginning. One
checkpoint at a time, and only this module runs any. Readers never stay in a snapshot (every
query fetches its rows and ends), so none can pin the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import apsw

from headrace.environment import failpoints
from headrace.storage.kv.sqlite.commit_thread import CommitThread
from headrace.storage.kv.sqlite.data_folder import PAGE_BYTES, DataFile

# 8 MiB. SQLite's own automatic checkpoint (off, see `wal_autocheckpoint`) would run inside a
# commit and delay it.
CHECKPOINT_PAGES = 2_000
# 2 MiB: little enough to copy on the loop's thread between two commits.
REST_PAGES = 500
LONG_PAGES = (32 << 20) // PAGE_BYTES
# A single pinned reader can grow a log by gigabytes within seconds: warn long before the disk is
# full.
ALARM_PAGES = (64 << 20) // PAGE_BYTES

_log = logging.getLogger(__name__)


class Checkpointer:
    """Keeps the write-ahead log short. Called after every commit."""

    def __init__(self, file: DataFile, thread: CommitThread, fatal: Callable[[str], None]) -> None:
        self._file = file
        self._fatal = fatal
        self._thread = thread
        self._running = False
        self._copied = False
        self._alarmed = False
        self._pages = 0
        # The hook is given the log's length with every commit, which saves a stat or a query.
        file.writer.set_wal_hook(self._grown)

    def _grown(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def committed(self) -> None:
        """A commit has just ended and none runs: begin or end a checkpoint where one is due."""
        # The rest must be copied while no commit runs: only then is the log copied whole, and
        # SQLite may start it from its beginning.
        if self._copied:
            self._finish()
        elif self._pages >= CHECKPOINT_PAGES and not self._running:
            if self._pages > ALARM_PAGES and not self._alarmed:
                self._alarmed = True
                _log.warning(
                    "the write-ahead log of %s has grown to %d MiB; commits come faster than the "
                    "disk can copy them",
                    self._file.path,
                    self._pages * PAGE_BYTES >> 20,
                )
            self._running = True
            self._thread.run(self._bulk)

    def _bulk(self) -> Callable[[], None]:
        failpoints.hit("checkpoint:before")
        self._copy(self._file.checkpointer)
        return self._bulk_ended

    def _bulk_ended(self) -> None:
        # The writer may be at work on the disk thread just now: the next commit's end finishes.
        self._copied = True

    def _finish(self) -> None:
        """Copy what commits have added meanwhile, so that the next one starts the log from its beginning."""
        # NOOP copies nothing and returns the two counts.
        total, done = self._file.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        self._copied = self._running = False
        # A large rest is left to the thread again; past LONG_PAGES even a long stop is better than
        # a log that never gets short.
        if total - done <= REST_PAGES or self._pages > LONG_PAGES:
            self._copy(self._file.writer)
            self._alarmed = False
            self._pages = 0
            failpoints.hit("checkpoint:after")

    def _copy(self, connection: apsw.Connection) -> None:
        try:
            # PASSIVE never waits for readers or the writer; FULL or RESTART would block commits.
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # Nothing is lost: the pages stay in the log, which is read as well as the file.
        except (apsw.BusyError, apsw.FullError) as error:
            _log.debug("a checkpoint could not be finished (%s); a later commit tries again", error)
        # A failed fsync is not tried again: the kernel may have dropped the dirty pages, and a
        # second fsync would succeed without them.
        except apsw.IOError as error:
            self._fatal(f"the disk under `{self._file.folder}` failed in a checkpoint ({error})")

    def close(self) -> None:
        """Wait for a checkpoint that runs; the connection that closes last does the rest."""
        self._thread.close()
