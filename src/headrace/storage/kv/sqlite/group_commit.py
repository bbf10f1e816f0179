"""One group of changes on its way into the file: check, write, and afterwards resolve every future.

Comes in: the changes that gathered while the last group was being committed. Goes out: a
transaction ready to be committed, and for each change what it became. The commit itself, which
waits for the disk, is the storage's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import apsw

from headrace.environment import failpoints
from headrace.model.effects import Change, Space
from headrace.model.errors import DiskFull, HeadraceError, Unavailable
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import (
    Look,
    Overlay,
    Scan,
    judge,
    look_through,
    only_appends,
    overlay_change,
)
from headrace.storage.kv.log_appends import Appender, Statement

_PUT = {
    space: f"INSERT INTO {space} (key, value) VALUES (?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    for space in Space
}
_DELETE = {space: f"DELETE FROM {space} WHERE key = ?" for space in Space}
_NOTHING = Applied()
MANY = 64
"""Appends for each change of a group from which on readers are woken after the changes' owners."""


class PendingChange:
    """A change (or a log's own statements) and the future that its caller awaits."""

    __slots__ = ("change", "future", "result", "size", "statements")

    def __init__(
        self,
        future: asyncio.Future[Applied],
        change: Change,
        statements: Sequence[Statement] = (),
    ) -> None:
        self.future = future
        self.change = change
        self.statements = statements
        size = 0
        for append in change.appends:
            size += len(append.body)
        for put in change.puts:
            size += len(put.value)
        self.size = size
        self.result: Applied | Exception = _NOTHING


class Group:
    """Changes that share one commit."""

    __slots__ = ("alone", "appending", "overlay", "size", "waiting")

    def __init__(self, waiting: list[PendingChange], *, alone: bool = False) -> None:
        self.waiting = waiting
        self.alone = alone
        self.overlay: Overlay = {}
        self.size = sum(entry.size for entry in waiting)
        self.appending = any(entry.change.appends for entry in waiting)

    @property
    def is_heard_by_many(self) -> bool:
        """Return True where it wakes many more readers than there are changes in the group."""
        appends = sum(len(entry.change.appends) for entry in self.waiting)
        return appends > MANY * len(self.waiting)

    def judge(
        self, look: Look, scan: Scan, appender: Appender | None, *, low: bool
    ) -> list[PendingChange]:
        """Decide who may land; the others have their error, and are left out of what is returned."""
        passed = []
        # The overlay is the dictionary itself, not a copy: the appender sees what earlier changes of the group
        # have added.
        overlaid = look_through(self.overlay, look)
        for entry in self.waiting:
            change = entry.change
            entry.result = applied = _NOTHING
            try:
                # Consumers may still write: finishing work is what frees space again.
                if low and only_appends(change):
                    raise full()
                judge(change, self.overlay, look, scan)
                if change.appends:
                    if appender is None:
                        raise Unavailable("no log is open in this store: nothing was stored")
                    entry.result = applied = appender.stage(change.appends, overlaid)
            except HeadraceError as error:
                # A refused change leaves no trace, and its neighbours land: it is the only one to
                # fail.
                entry.result = error
                continue
            overlay_change(change, applied, self.overlay)
            passed.append(entry)
        return passed

    def write(
        self, writer: apsw.Connection, passed: list[PendingChange], appender: Appender | None
    ) -> None:
        """Put everything into the open transaction."""
        for space, values in self.overlay.items():
            # From the overlay, not from the changes: a key written ten times in the group is
            # written once.
            puts = [(key, value) for key, value in values.items() if value is not None]
            if puts:
                writer.executemany(_PUT[space], puts)
            if len(puts) < len(values):
                writer.executemany(
                    _DELETE[space], [(key,) for key, value in values.items() if value is None]
                )
        if appender is not None and self.appending:
            for sql, rows in appender.flush():
                writer.executemany(sql, rows)
        for entry in passed:
            for sql, rows in entry.statements:
                writer.executemany(sql, rows)

    def settle(self) -> None:
        """Hand every waiter its result, in the order they came."""
        for entry in self.waiting:
            # Its caller was cancelled; the change has landed all the same.
            if entry.future.done():
                continue
            if isinstance(entry.result, Exception):
                entry.future.set_exception(entry.result)
            else:
                entry.future.set_result(entry.result)

    def fail(self, error: Exception) -> None:
        """Nothing landed: everyone without an error of their own gets this one."""
        for entry in self.waiting:
            # A change that was refused by a check keeps that error: it is true whatever became of
            # the group.
            if not isinstance(entry.result, HeadraceError):
                entry.result = error
        self.settle()


def stage(
    group: Group,
    writer: apsw.Connection,
    look: Look,
    scan: Scan,
    appender: Appender | None,
    *,
    low: bool,
) -> bool:
    """Judge and write the group; False where nothing is left to commit.

    Raises:
        apsw.Error: SQLite refused a write; the transaction is open and must be rolled back.
    """
    failpoints.hit("commit:before-write")
    passed = group.judge(look, scan, appender, low=low)
    if not passed:
        return False
    # The write lock now: DEFERRED would take it at the first write, where SQLite may answer BUSY
    # in the middle.
    writer.execute("BEGIN IMMEDIATE")
    group.write(writer, passed, appender)
    failpoints.hit("commit:after-write")
    failpoints.hit("commit:before-fsync")
    if group.appending:
        failpoints.hit("append:before-commit")
    return True


def full() -> DiskFull:
    """The error for a change while the disk is full."""
    return DiskFull(
        "the disk is full: nothing of this was stored; free some space and try again, "
        "what was acknowledged is safe"
    )
