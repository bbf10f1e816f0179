"""The outbox in the author's own SQLite database: filled by triggers, in the author's transactions.

Every change of the table leaves one row, numbered in the order of commits, since SQLite has one
writer. Values are kept as they are, column by column. The outbox follows columns that are added or
renamed; what was written before it could is read under the columns of then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import apsw
import msgspec

from headrace.model.errors import Misuse, Unavailable
from headrace.model.tables import Row, RowOp
from headrace.triggers.tables.rows import RowChange, plain

MAX_COLUMNS: Final = 400
BUSY_MS: Final = 10
"""How long a call waits for somebody else's write; it stands on the loop meanwhile."""
LAST: Final = (1 << 63) - 1
OPS: Final[tuple[RowOp, ...]] = ("insert", "update", "delete")
_NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


def is_busy(error: Unavailable) -> bool:
    """Whether only somebody else's write stood in the way: look again soon."""
    return isinstance(error.__cause__, apsw.BusyError | apsw.LockedError)


class Fit(msgspec.Struct, array_like=True, frozen=True):
    """What columns the triggers knew, up to a position (0: they know them still).

    Attributes:
        columns: The table's, in order.
        key: Those that name a row.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    upto: int = 0


_fits = msgspec.json.Decoder(tuple[Fit, ...]).decode


class Outbox:
    """One reader's outbox beside one table. Used by one task; every call is short, and waits hardly.

    Attributes:
        epoch: Differs where the outbox was made anew.
    """

    def __init__(self, path: str, table: str, name: str, key: tuple[str, ...]) -> None:
        if not Path(path).is_file():
            raise Unavailable(f"there is no database `{path}` yet")
        self._table, self._name = table, name
        self._given = key
        self._path = path
        try:
            self._db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
            self._db.set_busy_timeout(BUSY_MS)
        except apsw.Error as error:
            raise self._trouble(error) from error
        self._schema = -1
        self._seen = -1
        self._fits: tuple[Fit, ...] = ()
        self.epoch = 0

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def install(self, *, snapshot: bool) -> None:
        """Make the outbox, or make it fit the table; all or nothing.

        Raises:
            Misuse: The table's rows cannot be told apart.
            Unavailable: There is no such table now, or the database is busy or cannot be read.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._fit(snapshot=snapshot)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._schema = self._pragma("schema_version")
        except apsw.Error as error:
            raise self._trouble(error) from error

    def changed(self) -> bool:
        """Whether somebody else has written since the last look."""
        try:
            seen = self._pragma("data_version")
        except apsw.Error as error:
            raise self._trouble(error) from error
        changed, self._seen = seen != self._seen, seen
        return changed

    def altered(self) -> bool:
        """Whether the table may have other columns than the outbox knows."""
        try:
            return self._pragma("schema_version") != self._schema
        except apsw.Error as error:
            raise self._trouble(error) from error

    def read(self, after: int, limit: int) -> tuple[list[RowChange], tuple[str, ...]]:
        """The changes that come after position `after`, in order, and the columns that name their rows."""
        fit = next(fit for fit in self._fits if not fit.upto or fit.upto > after)
        cells = ", ".join(
            # A text that is no UTF-8 must not hold up what comes behind it.
            f"typeof({cell}) = 'text', CASE typeof({cell}) WHEN 'text' THEN CAST({cell} AS BLOB) ELSE {cell} END"
            for side in ("before", "after")
            for cell in (_quoted(f"{side}_{name}") for name in fit.columns)
        )
        sql = (
            f"SELECT position, op, at, {cells} FROM {_quoted(self._name)} "
            "WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
        )
        try:
            found = list(self._db.execute(sql, (after, fit.upto or LAST, limit)))
        except apsw.Error as error:
            raise self._trouble(error) from error
        if not found and fit.upto:
            return self.read(fit.upto, limit)
        return [_change(row, fit.columns) for row in found], fit.key

    def last(self) -> int:
        """The highest position ever given."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        try:
            return cast("int", self._db.execute(sql, (self._name,)).get or 0)
        except apsw.Error as error:
            raise self._trouble(error) from error

    def forget(self, upto: int) -> bool:
        """Delete what was told; False where the database is busy, to be tried again."""
        try:
            self._db.execute(f"DELETE FROM {_quoted(self._name)} WHERE position <= ?", (upto,))
        except (apsw.BusyError, apsw.LockedError):
            return False
        except apsw.Error as error:
            raise self._trouble(error) from error
        return True

    def _fit(self, *, snapshot: bool) -> None:
        about = list(
            self._db.execute(
                "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", (self._table,)
            )
        )
        columns = tuple(str(name) for name, _ in about)
        if not about:
            raise Unavailable(f"`{self._path}` has no table `{self._table}`; create it")
        if len(about) > MAX_COLUMNS:
            raise Misuse(f"`{self._table}` has {len(about)} columns; the limit is {MAX_COLUMNS}")
        own = sorted((cast("int", place), str(name)) for name, place in about if place)
        key = self._given or tuple(name for _, name in own)
        if not key or set(key) - set(columns):
            raise Misuse(
                f"`{self._table}` has no "
                + (f"columns {', '.join(key)}" if key else "primary key")
                + '; say which columns name a row: `key="id"`'
            )
        fresh = not self._db.execute(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (self._name,)
        ).get
        if fresh:
            self._db.execute(
                f"CREATE TABLE {_quoted(self._name)} (position INTEGER PRIMARY KEY AUTOINCREMENT, "
                "op TEXT NOT NULL, at INTEGER NOT NULL)"
            )
            self._db.execute(
                f"CREATE TABLE {self._about} AS SELECT abs(random()) AS epoch, '[]' AS fits"
            )
        elif not self._db.execute(
            "SELECT 1 FROM pragma_table_info(?) WHERE name = 'fits'", (f"{self._name}_epoch",)
        ).get:
            # It was made by an earlier version of ours.
            self._db.execute(f"ALTER TABLE {self._about} ADD COLUMN fits TEXT DEFAULT '[]'")
        self.epoch = cast("int", self._db.execute(f"SELECT epoch FROM {self._about}").get)
        self._follow(Fit(columns, key))
        known = {
            str(name)
            for (name,) in self._db.execute("SELECT name FROM pragma_table_info(?)", (self._name,))
        }
        for side in ("before", "after"):
            for name in columns:
                if f"{side}_{name}" not in known:
                    self._db.execute(
                        f"ALTER TABLE {_quoted(self._name)} ADD COLUMN {_quoted(f'{side}_{name}')}"
                    )
        for op in OPS:
            self._db.execute(f"DROP TRIGGER IF EXISTS {_quoted(f'{self._name}_{op}')}")
            self._db.execute(self._trigger(op, columns))
        if fresh and snapshot:
            self._db.execute(
                f"INSERT INTO {_quoted(self._name)} (op, at, {_cells('after', columns)}) "
                f"SELECT 'read', {_NOW}, {', '.join(_quoted(name) for name in columns)} "
                f"FROM {_quoted(self._table)}"
            )

    def _follow(self, fit: Fit) -> None:
        """Remember what columns the triggers know from now on, and which they knew for what is left."""
        raw = self._db.execute(f"SELECT fits FROM {self._about}").get
        fits = _fits(cast("str", raw))
        if fits and (fits[-1].columns, fits[-1].key) == (fit.columns, fit.key):
            self._fits = fits
            return
        first = self._db.execute(f"SELECT min(position) FROM {_quoted(self._name)}").get
        former = (
            each if each.upto else msgspec.structs.replace(each, upto=self.last()) for each in fits
        )
        left = tuple(each for each in former if first is not None and each.upto >= first)
        self._fits = (*left, fit)
        told = msgspec.json.encode(self._fits).decode()
        self._db.execute(f"UPDATE {self._about} SET fits = ?", (told,))

    @property
    def _about(self) -> str:
        return _quoted(self._name + "_epoch")

    def _trigger(self, op: RowOp, columns: tuple[str, ...]) -> str:
        into, values = [], []
        for side, row, ops in (("before", "OLD", OPS[1:]), ("after", "NEW", OPS[:2])):
            if op in ops:
                into.append(_cells(side, columns))
                values += [f"{row}.{_quoted(name)}" for name in columns]
        return (
            f"CREATE TRIGGER {_quoted(f'{self._name}_{op}')} AFTER {op} ON {_quoted(self._table)} BEGIN "
            f"INSERT INTO {_quoted(self._name)} (op, at, {', '.join(into)}) "
            f"VALUES ('{op}', {_NOW}, {', '.join(values)}); END"
        )

    def _pragma(self, name: str) -> int:
        return cast("int", self._db.pragma(name))

    def _trouble(self, error: apsw.Error) -> Unavailable:
        return Unavailable(f"the database `{self._path}` cannot be used now: {error}")


def _change(row: Sequence[Any], columns: tuple[str, ...]) -> RowChange:
    position, op, at = row[:3]
    half = 3 + 2 * len(columns)
    before = _row(row[3:half], columns) if op in OPS[1:] else None
    after = _row(row[half:], columns) if op != "delete" else None
    return RowChange(op, before, after, str(position), max(at, 0))


def _row(cells: Sequence[Any], columns: tuple[str, ...]) -> Row:
    return {
        name: value.decode(errors="replace") if text else plain(value)
        for name, text, value in zip(columns, cells[::2], cells[1::2], strict=True)
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cells(side: str, columns: Iterable[str]) -> str:
    return ", ".join(_quoted(f"{side}_{name}") for name in columns)
