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

from headrace.keepers.storage.sqlite.committing import Beside
from headrace.keepers.storage.sqlite.file import DataFile
from headrace.world import failpoints

CHECKPOINT_PAGES = 2_000
REST_PAGES = 250
ALARM_PAGES = (64 << 20) // 4096

_log = logging.getLogger(__name__)


class Checkpointer:
    """Keeps the write-ahead log short. Told of every commit."""

    def __init__(self, file: DataFile, beside: Beside, fatal: Callable[[str], None]) -> None:
        self._file = file
        self._fatal = fatal
        self._closed = False
        self._beside = beside
        self._running = False
        self._alarmed = False
        self._pages = 0
        self._due = CHECKPOINT_PAGES
        file.writer.set_wal_hook(self._grown)

    def _grown(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def committed(self) -> None:
        """A commit has just ended: begin a checkpoint where one is due."""
        if self._running or self._pages < self._due:
            return
        if self._pages > ALARM_PAGES and not self._alarmed:
            self._alarmed = True
            _log.warning(
                "the write-ahead log of %s has grown to %d MiB", self._file.path, self._pages >> 8
            )
        self._running = True
        self._beside.run(self._bulk)

    def _bulk(self) -> Callable[[], None]:
        failpoints.hit("checkpoint:before")
        self._copy(self._file.checkpointer)
        return self._rest

    def _rest(self) -> None:
        self._running = False
        if self._closed:
            return
        if self._file.writer.in_transaction:
            # A group is being committed on the disk thread: come back after it.
            self._due = 0
            return
        total, copied = self._file.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if total - copied <= REST_PAGES:
            self._copy(self._file.writer)
            self._alarmed = False
            self._due = CHECKPOINT_PAGES
            failpoints.hit("checkpoint:after")
        else:
            # Commits were quicker than the copy: go on from where it ended.
            self._due = 0

    def _copy(self, connection: apsw.Connection) -> None:
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.FullError) as error:
            _log.debug("a checkpoint could not be finished (%s); a later commit asks again", error)
        except apsw.IOError as error:
            self._fatal(f"the disk under `{self._file.folder}` failed in a checkpoint ({error})")

    def close(self) -> None:
        """Begin no more; the connection that closes last does what is left."""
        self._closed = True
