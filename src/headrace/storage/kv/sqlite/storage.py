"""The store in one SQLite file: changes gather, and each group is one transaction and one fsync.

While a group is committed the next one gathers; a change that finds the store idle is committed at
once. A failed fsync ends the process, because what the disk then holds is unknown; a full disk
turns producers away and lets consumers finish; a queue that is too long is refused, never grown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import cast

import apsw

from headrace.environment import failpoints
from headrace.environment.clock import Clock
from headrace.model.effects import Change, Space
from headrace.model.errors import Overloaded, Unavailable
from headrace.model.policy import MAX_CHANGES_PER_GROUP, MAX_QUEUED_CHANGES
from headrace.storage.kv.base import Applied
from headrace.storage.kv.log_appends import Appender, Cell, Statement
from headrace.storage.kv.sqlite.cached_rows import CachedRows
from headrace.storage.kv.sqlite.checkpoint import Checkpointer
from headrace.storage.kv.sqlite.commit_thread import CommitPace, CommitThread
from headrace.storage.kv.sqlite.data_folder import DataFile
from headrace.storage.kv.sqlite.disk_space import RESERVE_BYTES, DiskSpace
from headrace.storage.kv.sqlite.group_commit import Group, PendingChange, full, stage
from headrace.storage.kv.sqlite.page_checksums import is_damage, read_error

# Bounds the time of one commit: a change must not wait behind an arbitrarily large group.
MAX_GROUP_BYTES = 16 << 20
MAX_QUEUED_BYTES = 128 << 20
QUIET_TURNS = 2
LINGER_COMMITS = 2
"""How long a group may gather, in the time that a commit takes."""
EXIT_DISK_FAILED = 70

_log = logging.getLogger(__name__)


def end_process(message: str) -> None:
    """Say why, and stop at once: nothing this process believes about its disk is certain."""
    sys.stderr.write(f"headrace: {message}\n")
    sys.stderr.flush()
    # Not `sys.exit`: cleanup would write to the disk that has just failed, and other threads would
    # go on.
    os._exit(EXIT_DISK_FAILED)


class SqliteStorage:
    """Keeps everything in `folder`. Used on the loop's thread; one per process and folder."""

    def __init__(
        self,
        file: DataFile,
        space: DiskSpace,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        fatal: Callable[[str], None],
    ) -> None:
        self._file = file
        self._space = space
        self._clock = clock
        self._loop = loop
        self._fatal = fatal
        self._rows = CachedRows(file.reader, file.path)
        self._pace = CommitPace()
        self._commit_thread = CommitThread(loop, name="storage-commits")
        self._checkpointer = Checkpointer(
            file, CommitThread(loop, name="storage-checkpoints"), fatal
        )
        self._appender: Appender | None = None
        self._queue: deque[PendingChange] = deque()
        self._queued_bytes = 0
        self._busy = self._company = False
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        clock: Clock,
        reserve: int = RESERVE_BYTES,
        vfs: str | None = None,
        fatal: Callable[[str], None] = end_process,
    ) -> SqliteStorage:
        """Open the folder, which is made where it is missing.

        Args:
            folder: The data folder.
            clock: The source of time.
            reserve: Bytes kept free for finishing work when the disk is full.
            vfs: A SQLite file layer, for tests that make the disk fail.
            fatal: What ends the process when an fsync has failed.

        Raises:
            Locked: Another process holds the folder.
            Refused: The linked SQLite is too old.
            Misuse: The folder cannot be used, or a newer version wrote it.
            Corrupt: The file or its write-ahead log is damaged.
        """
        file = DataFile(folder, vfs=vfs)
        failpoints.hit("recovery:opened")
        space = DiskSpace(folder, clock, file.reusable_bytes, reserve=reserve)
        return cls(file, space, clock, asyncio.get_running_loop(), fatal)

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self._file.folder

    @property
    def low(self) -> bool:
        """True while producers are refused because the disk is nearly full."""
        return self._space.low

    # Changes -------------------------------------------------------------------------------

    async def apply(self, change: Change) -> Applied:
        """Make `change` durable together with its neighbours; see the port."""
        return await self._submit(PendingChange(self._loop.create_future(), change))

    async def write(self, statements: Sequence[Statement]) -> None:
        """Run a log's own statements within a group; for logs that are kept in this store."""
        await self._submit(PendingChange(self._loop.create_future(), Change(), statements))

    def attach(self, appender: Appender) -> None:
        """Let this log take the appends of changes."""
        if self._appender is not None:
            raise RuntimeError("a log is attached to this store already")
        self._appender = appender

    def detach(self) -> None:
        """The log is closed."""
        self._appender = None

    def _submit(self, entry: PendingChange) -> asyncio.Future[Applied]:
        if self._closed:
            raise Unavailable(f"the store in `{self.folder}` is closed; nothing was stored")
        if (
            len(self._queue) >= MAX_QUEUED_CHANGES
            or self._queued_bytes + entry.size > MAX_QUEUED_BYTES
        ):
            raise Overloaded(
                f"{len(self._queue)} changes of {self._queued_bytes} bytes wait for the disk "
                "already; slow down and try again"
            )
        self._queue.append(entry)
        self._queued_bytes += entry.size
        if not self._busy:
            # Set before the callback runs, so that changes submitted meanwhile join this group
            # instead of beginning another.
            self._busy = True
            self._close_soon()
        return entry.future

    def _close_soon(self) -> None:
        """Let the next group gather while changes keep coming, where they came in company lately."""
        # Only where changes lately came together: a lone caller would wait for companions that do
        # not come.
        if self._company:
            until = self._clock.monotonic() + LINGER_COMMITS * self._pace.expected
            self._loop.call_soon(self._linger, 0, 0, until)
        else:
            self._loop.call_soon(self._next_group)

    def _linger(self, seen: int, quiet: int, until: float) -> None:
        """Close the group once some turns of the loop brought no change, or its time is up.

        A commit costs the same for one change as for fifty, and what is on its way (an answer of a
        child, the next publish of a producer) would otherwise have to wait for all of the next one.
        """
        waiting = len(self._queue)
        quiet = 0 if waiting > seen else quiet + 1
        if quiet >= QUIET_TURNS or self._clock.monotonic() >= until:
            self._next_group()
        else:
            self._loop.call_soon(self._linger, waiting, quiet, until)

    def _next_group(self) -> None:
        """Stage what has gathered and have it committed, or rest."""
        while self._queue:
            group = Group(self._gather())
            if self._stage(group):
                self._commit(group)
                return
            # The group is settled already: everything was refused, or nothing could land.
        self._busy = False
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _gather(self) -> list[PendingChange]:
        entries: list[PendingChange] = []
        size = 0
        while self._queue and len(entries) < MAX_CHANGES_PER_GROUP and size < MAX_GROUP_BYTES:
            entry = self._queue.popleft()
            size += entry.size
            entries.append(entry)
        self._queued_bytes -= size
        self._company = len(entries) > 1
        return entries

    def _stage(self, group: Group) -> bool:
        """Begin the group's transaction and write it; False where nothing is left to commit."""
        try:
            ready = stage(
                group,
                self._file.writer,
                self._rows.get,
                self._rows.scan,
                self._appender,
                low=self._space.look(),
            )
        except Exception as error:  # noqa: BLE001 - classified, and given to the waiters
            self._undo()
            self._recover(group, error)
            return False
        if not ready:
            self._drop()
            group.settle()
        return ready

    def _commit(self, group: Group) -> None:
        if self._pace.in_place(group.size):
            began = self._clock.monotonic()
            error = self._sync()
            self._pace.took(self._clock.monotonic() - began)
            self._committed(group, error)
        else:

            def work() -> Callable[[], None]:
                failed = self._sync()
                return lambda: self._committed(group, failed)

            self._commit_thread.run(work)

    def _sync(self) -> apsw.Error | None:
        try:
            self._file.writer.execute("COMMIT")
        except apsw.Error as error:
            # A failed fsync is never repeated: the kernel may have dropped the pages, and would
            # then report success.
            if isinstance(error, apsw.IOError) and not is_damage(error):
                self._fatal(
                    f"the disk under `{self.folder}` failed while committing ({error}); "
                    "stopping, because it is unknown what was stored. Check the disk, then start "
                    "again: everything acknowledged before is read back"
                )
            return error
        return None

    def _committed(self, group: Group, error: apsw.Error | None) -> None:
        if error is not None:
            self._undo()
            self._recover(group, error)
        else:
            self._landed(group)
        # Through the loop, not at once: those who were just woken may hand in their next change,
        # and join.
        if self._queue:
            self._close_soon()
        else:
            self._next_group()

    def _landed(self, group: Group) -> None:
        # The cache first: callers woken below read their own writes.
        self._rows.landed(group.overlay)
        appender = self._appender if group.appending else None
        # Those who wait for the disk need not wait until a thousand others have been woken.
        is_heard_late = group.is_heard_by_many
        if appender is not None and not is_heard_late:
            appender.landed()
        try:
            failpoints.hit("commit:after-fsync")
            if group.appending:
                failpoints.hit("append:after-commit")
        except Exception as fault:  # noqa: BLE001 - a planted fault: it landed, but no caller learns it
            group.fail(_unexpected(fault))
        else:
            group.settle()
        if appender is not None and is_heard_late:
            appender.landed()
        self._checkpointer.committed()

    # When something goes wrong -------------------------------------------------------------

    def _undo(self) -> None:
        # On a full disk SQLite may have rolled back by itself; another ROLLBACK would be an error.
        if self._file.writer.in_transaction:
            self._file.writer.execute("ROLLBACK")
        self._drop()

    def _drop(self) -> None:
        if self._appender is not None:
            self._appender.dropped()

    def _recover(self, group: Group, error: Exception) -> None:
        """After a group that did not land: find the change at fault, and commit the others."""
        damage = is_damage(error)
        if isinstance(error, apsw.IOError) and not damage:
            self._fatal(
                f"the disk under `{self.folder}` failed while writing ({error}); stopping. Check "
                "the disk, then start again: everything acknowledged is read back"
            )
        disk_full = isinstance(error, apsw.FullError)
        # The reserve was there: with its blocks free the same changes are tried once more, one by
        # one.
        if disk_full and self._space.shed():
            _log.warning("the disk under %s is full: living on the reserve", self.folder)
        elif group.alone:
            if isinstance(error, apsw.Error) and damage:
                group.fail(read_error(error, self._file.path))
            else:
                group.fail(full() if disk_full else _unexpected(error))
            return
        # One by one, since SQLite does not say which statement's data was at fault; slow, but
        # rare.
        for entry in group.waiting:
            self._alone(entry)

    def _alone(self, entry: PendingChange) -> None:
        """Commit one change by itself, in place; only ever after its group has failed."""
        group = Group([entry], alone=True)
        if not self._stage(group):
            return
        error = self._sync()
        if error is not None:
            self._undo()
            self._recover(group, error)
        else:
            self._landed(group)

    # Reads ---------------------------------------------------------------------------------

    async def get(self, space: Space, key: bytes) -> bytes | None:
        """The value at `key`, as last committed."""
        self._require_open()
        return self._rows.get(space, key)

    async def get_many(
        self, space: Space, keys: Sequence[bytes], *, most: int | None = None
    ) -> list[bytes | None]:
        """The values at `keys`, of one snapshot, in the order of `keys`."""
        self._require_open()
        return self._rows.get_many(space, keys, most)

    async def scan(
        self,
        space: Space,
        low: bytes,
        high: bytes | None = None,
        *,
        limit: int = 1_000,
        most: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs in ascending order."""
        self._require_open()
        return self._rows.scan(space, low, high, limit, most)

    def query(self, sql: str, values: apsw.Bindings = ()) -> list[tuple[Cell, ...]]:
        """Committed rows of a log's own tables."""
        self._require_open()
        # STRICT tables without REAL columns hold nothing else.
        try:
            rows = self._file.reader.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise read_error(error, self._file.path) from error
        return cast("list[tuple[Cell, ...]]", rows)

    def rows(
        self, sql: str, values: tuple[Cell, ...] = ()
    ) -> Generator[tuple[Cell, ...], None, None]:
        """As `query`, one by one; to be closed, and never kept across a wait."""
        self._require_open()
        cursor: apsw.Cursor | None = None
        try:
            # Not prefetched: a partition may hold more rows than memory.
            cursor = self._file.reader.execute(sql, values)
            yield from cursor
        except apsw.Error as error:
            raise read_error(error, self._file.path) from error
        finally:
            if cursor is not None:
                # Ends the implicit read transaction, which would otherwise pin the write-ahead
                # log.
                cursor.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable(f"the store in `{self.folder}` is closed")

    async def settled(self) -> None:
        """Return once every change handed in so far has landed or failed."""
        self._require_open()
        if self._busy:
            # Groups are settled in order, and a change of nothing costs no commit.
            await self.apply(Change())

    async def close(self) -> None:
        """Finish what was accepted, then let go of the files and the lock."""
        if self._closed:
            return
        # Before the wait, so that nothing new joins while the queue drains.
        self._closed = True
        if self._busy:
            self._idle = self._loop.create_future()
            await self._idle
        self._commit_thread.close()
        self._checkpointer.close()
        self._file.close()


def _unexpected(error: Exception) -> Unavailable:
    return Unavailable(f"the store could not take this change: {type(error).__name__}: {error}")
