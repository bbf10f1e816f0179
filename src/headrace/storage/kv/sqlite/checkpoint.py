"""Moving the write-ahead log into the file, before it grows.

The bulk is copied on the disk thread while commits go on; when what is left is little, the rest is
copied between two commits, so that the next commit starts the write-ahead log anew. One checkpoint
at a time, and this is the only place that asks for any. Readers never stay in a snapshot (every
query fetches its rows and ends), so none can pin the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import apsw

from headrace.environment import failpoints
from headrace.storage.kv.sqlite.commit_thread import CommitThread
from headrace.storage.kv.sqlite.data_folder import PAGE_BYTES, DataFile

CHECKPOINT_PAGES = 2_000
REST_PAGES = 500
LONG_PAGES = (32 << 20) // PAGE_BYTES
ALARM_PAGES = (64 << 20) // PAGE_BYTES

_log = logging.getLogger(__name__)


class Checkpointer:
    """Keeps the write-ahead log short. Told of every commit."""

    def __init__(self, file: DataFile, beside: CommitThread, fatal: Callable[[str], None]) -> None:
        self._file = file
        self._fatal = fatal
        self._beside = beside
        self._running = False
        self._copied = False
        self._alarmed = False
        self._pages = 0
        file.writer.set_wal_hook(self._grown)

    def _grown(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def committed(self) -> None:
        """A commit has just ended and none runs: begin or end a checkpoint where one is due."""
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
            self._beside.run(self._bulk)

    def _bulk(self) -> Callable[[], None]:
        failpoints.hit("checkpoint:before")
        self._copy(self._file.checkpointer)
        return self._bulk_ended

    def _bulk_ended(self) -> None:
        # The writer may be at work on the disk thread just now: the next commit's end finishes.
        self._copied = True

    def _finish(self) -> None:
        """Copy what commits have added meanwhile, so that the next one starts the log anew."""
        total, done = self._file.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        self._copied = self._running = False
        if total - done <= REST_PAGES or self._pages > LONG_PAGES:
            self._copy(self._file.writer)
            self._alarmed = False
            self._pages = 0
            failpoints.hit("checkpoint:after")

    def _copy(self, connection: apsw.Connection) -> None:
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.FullError) as error:
            _log.debug("a checkpoint could not be finished (%s); a later commit asks again", error)
        except apsw.IOError as error:
            self._fatal(f"the disk under `{self._file.folder}` failed in a checkpoint ({error})")

    def close(self) -> None:
        """Wait for a checkpoint that runs; the connection that closes last does the rest."""
        self._beside.close()
