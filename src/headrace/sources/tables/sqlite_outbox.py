"""The outbox in the author's own SQLite database: filled by triggers, in the author's transactions.

Every change of the table leaves one row, numbered in the order of commits, since SQLite has one
writer. Values are kept as they are, column by column. The outbox follows columns that are added or
renamed; what was written before it could is read under the columns of then.

The number and the time of the last row that was read are stored with the outbox. So numbers grow
whatever becomes of SQLite's own count, and a database that was replaced or put back is recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from stat import S_ISREG
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, cast

import apsw
import msgspec

from headrace.model.errors import Misuse, Unavailable
from headrace.model.triggers.tables import Row, RowOp
from headrace.sources.tables.row_events import RowChange, plain

# A row of the outbox has two cells for each, read as four: SQLite's limit is 2,000 columns.
MAX_COLUMNS: Final = 400
BUSY_MS: Final = 10
"""How long a call waits for another program's write; it blocks the loop meanwhile."""
LAST: Final = (1 << 63) - 1
OPS: Final[tuple[RowOp, ...]] = ("insert", "update", "delete")
ENCODINGS: Final = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}
_FOLDED: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


def is_busy(error: Unavailable) -> bool:
    """Return True where only another program's write lock was in the way: look again soon."""
    return isinstance(error.__cause__, apsw.BusyError | apsw.LockedError)


class Fit(msgspec.Struct, array_like=True, frozen=True):
    """The columns that the triggers knew, up to a position (0: they still do).

    Attributes:
        columns: The table's, in order.
        key: Those that name a row.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    upto: int = 0


_fits = msgspec.json.Decoder(tuple[Fit, ...]).decode


class OutboxProgress(msgspec.Struct, array_like=True, frozen=True):
    """The position in an outbox, and which outbox that was.

    Attributes:
        slot, epoch: Which outbox.
        position: Of the last row that was read; 0 for none.
        at: When that row was written, in microseconds since the epoch; None for none.
    """

    slot: str
    epoch: int
    position: int = 0
    at: int | None = None


class Outbox:
    """One reader's outbox for one table. Used by one task; every call is short, and hardly waits.

    Attributes:
        epoch: Differs where the outbox was made again.
    """

    def __init__(self, path: str, table: str, name: str, key: tuple[str, ...]) -> None:
        found = _file(path)
        # apsw would create the file, and a mistyped path would be watched for ever as an empty
        # database.
        if found is None:
            raise Unavailable(f"there is no database `{path}` yet")
        # Of before it is opened: a file that is replaced meanwhile is noticed at the next look.
        self._file = found
        self._table = table
        self._name = name
        self._given = key
        self._path = path
        try:
            self._db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
            # Short: calls run on the loop. Longer locks are waited for by looking again.
            self._db.set_busy_timeout(BUSY_MS)
        except apsw.Error as error:
            raise self._trouble(error) from error
        self._schema = -1
        self._seen = -1
        self._fits: tuple[Fit, ...] = ()
        self._encoding = "utf-8"
        self.epoch = 0

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def install(self, *, snapshot: bool) -> None:
        """Make the outbox, or make it fit the table; all or nothing.

        Raises:
            Misuse: The table has no columns that identify a row.
            Unavailable: There is no such table now, or the database is busy or cannot be read.
        """
        try:
            # All or nothing: triggers without their table would make the author's own writes fail.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._fit(snapshot=snapshot)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._schema = self._pragma("schema_version")
            self._encoding = ENCODINGS[str(self._db.pragma("encoding"))]
        except apsw.Error as error:
            raise self._trouble(error) from error

    def moved(self) -> bool:
        """Return True where the path names another file by now, or none; then this one must not be used."""
        return _file(self._path) != self._file

    def changed(self) -> bool:
        """Return True where another connection has written since the last look."""
        try:
            seen = self._pragma("data_version")
        except apsw.Error as error:
            raise self._trouble(error) from error
        changed, self._seen = seen != self._seen, seen
        return changed

    def altered(self) -> bool:
        """Return True where the table may have other columns than the outbox knows."""
        try:
            return self._pragma("schema_version") != self._schema
        except apsw.Error as error:
            raise self._trouble(error) from error

    def read(
        self, mark: OutboxProgress, limit: int
    ) -> tuple[list[tuple[RowChange, OutboxProgress]], tuple[str, ...]] | None:
        """The changes that come after `mark`, in order, each with the mark of having read it.

        With them come the columns that name their rows. None where the outbox is not the one that
        was read up to `mark`: the database was replaced, or put back to an earlier state.
        """
        found = None
        try:
            # One read transaction: the check and the rows must be of one state of the database.
            with self._db:
                if self._holds(mark):
                    found = self._read(mark, mark.position, limit)
        except apsw.Error as error:
            raise self._trouble(error) from error
        return found

    def _read(
        self, mark: OutboxProgress, after: int, limit: int
    ) -> tuple[list[tuple[RowChange, OutboxProgress]], tuple[str, ...]]:
        fit = next(fit for fit in self._fits if not fit.upto or fit.upto > after)
        cells = ", ".join(
            # A text that is not of its encoding must not hold up what comes behind it.
            f"typeof({cell}) = 'text', CASE typeof({cell}) WHEN 'text' THEN CAST({cell} AS BLOB) ELSE {cell} END"
            for side in ("before", "after")
            for cell in (_quoted(f"{side}_{name}") for name in fit.columns)
        )
        sql = (
            f"SELECT position, op, at, {cells} FROM {_quoted(self._name)} "
            "WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
        )
        found = list(self._db.execute(sql, (after, fit.upto or LAST, limit)))
        if not found and fit.upto:
            return self._read(mark, fit.upto, limit)
        changes = [
            (
                _change(row, fit.columns, self._encoding),
                msgspec.structs.replace(mark, position=cast("int", row[0]), at=cast("int", row[2])),
            )
            for row in found
        ]
        return changes, fit.key

    def _holds(self, mark: OutboxProgress) -> bool:
        """Return True where the outbox still knows the row that was read last."""
        epoch, position, at = self._progress()
        # A random number distinguishes a new outbox from the one that was read, whatever its positions
        # are.
        if epoch != mark.epoch:
            return False
        if mark.at is None or (position, at) == (mark.position, mark.at):
            return True
        sql = f"SELECT at FROM {_quoted(self._name)} WHERE position = ?"
        return bool(self._db.execute(sql, (mark.position,)).get == mark.at)

    def _progress(self) -> tuple[int, int, int | None]:
        found = self._db.execute(f"SELECT epoch, told, told_at FROM {self._about}")
        return cast("tuple[int, int, int | None]", next(iter(found)))

    def forget(self, mark: OutboxProgress) -> bool:
        """Delete what was appended; False where that is to be tried again, since the database is busy."""
        name = _quoted(self._name)
        try:
            with self._db:
                if mark.at is not None and self._holds(mark):
                    self._db.execute(f"DELETE FROM {name} WHERE position <= ?", (mark.position,))
                    self._db.execute(
                        f"UPDATE {self._about} SET told = ?, told_at = ?", (mark.position, mark.at)
                    )
        except (apsw.BusyError, apsw.LockedError):
            return False
        except apsw.Error as error:
            raise self._trouble(error) from error
        return True

    def start_again(self) -> None:
        """Put every row of the table into the outbox again, as `read`, behind what is in it.

        An outbox of which nothing was read is left as it is: its rows are in it, or come by themselves.

        Raises:
            Unavailable: The database is busy or cannot be read.
        """
        try:
            with self._db:
                self.epoch, position, _ = self._progress()
                if position:
                    self._db.execute(
                        f"UPDATE {self._about} SET epoch = abs(random()), told = 0, told_at = NULL"
                    )
                    self._db.execute(self._copy(self._fits[-1].columns))
                    self.epoch, _, _ = self._progress()
        except apsw.Error as error:
            raise self._trouble(error) from error

    def _fit(self, *, snapshot: bool) -> None:
        about = list(
            self._db.execute(
                "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", (self._table,)
            )
        )
        columns = tuple(str(name) for name, _ in about)
        named = {_folded(name): name for name in columns}
        if not about:
            raise Unavailable(f"`{self._path}` has no table `{self._table}`; create it")
        if len(about) > MAX_COLUMNS:
            raise Misuse(f"`{self._table}` has {len(about)} columns; the limit is {MAX_COLUMNS}")
        own = sorted((cast("int", place), str(name)) for name, place in about if place)
        given = tuple(named.get(_folded(name), name) for name in self._given)
        key = given or tuple(name for _, name in own)
        if not key or set(key) - set(columns):
            raise Misuse(
                f"`{self._table}` has no "
                + (f"columns {', '.join(key)}" if key else "primary key")
                + '; say which columns name a row: `key_columns="id"`'
            )
        fresh = not self._db.execute(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (self._name,)
        ).get
        if fresh:
            self._db.execute(
                # AUTOINCREMENT never gives a number twice, even when the newest rows were deleted.
                f"CREATE TABLE {_quoted(self._name)} (position INTEGER PRIMARY KEY AUTOINCREMENT, "
                "op TEXT NOT NULL, at INTEGER NOT NULL)"
            )
            self._db.execute(f"DROP TABLE IF EXISTS {self._about}")
            self._db.execute(f"CREATE TABLE {self._about} AS SELECT abs(random()) AS epoch")
        about_known = self._columns(f"{self._name}_epoch")
        for column in ("fits TEXT DEFAULT '[]'", "told INTEGER DEFAULT 0", "told_at INTEGER"):
            # One that an earlier version of ours has made lacks some.
            if column.partition(" ")[0] not in about_known:
                self._db.execute(f"ALTER TABLE {self._about} ADD COLUMN {column}")
        self.epoch, _, _ = self._progress()
        self._follow(Fit(columns, key))
        known = self._columns(self._name)
        for side in ("before", "after"):
            for name in columns:
                if _folded(f"{side}_{name}") not in known:
                    self._db.execute(
                        f"ALTER TABLE {_quoted(self._name)} ADD COLUMN {_quoted(f'{side}_{name}')}"
                    )
        for op in OPS:
            # Triggers name columns, so they are made again whenever the table has others.
            self._db.execute(f"DROP TRIGGER IF EXISTS {_quoted(f'{self._name}_{op}')}")
            self._db.execute(self._trigger(op, columns))
        if fresh and snapshot:
            self._db.execute(self._copy(columns))

    def _follow(self, fit: Fit) -> None:
        """Remember what columns the triggers know from now on, and which they knew for what is left."""
        raw = self._db.execute(f"SELECT fits FROM {self._about}").get
        fits = _fits(cast("str", raw))
        if fits and (fits[-1].columns, fits[-1].key) == (fit.columns, fit.key):
            self._fits = fits
            return
        sql = f"SELECT min(position), max(position) FROM {_quoted(self._name)}"
        first, last = next(iter(self._db.execute(sql)))
        former = (each if each.upto else msgspec.structs.replace(each, upto=last) for each in fits)
        left = tuple(each for each in former if first is not None and each.upto >= first)
        self._fits = (*left, fit)
        encoded = msgspec.json.encode(self._fits).decode()
        self._db.execute(f"UPDATE {self._about} SET fits = ?", (encoded,))

    def _columns(self, table: str) -> frozenset[str]:
        """The columns of a table, as SQLite compares their names."""
        found = self._db.execute("SELECT name FROM pragma_table_info(?)", (table,))
        return frozenset(_folded(str(name)) for (name,) in found)

    def _copy(self, columns: tuple[str, ...]) -> str:
        return (
            f"INSERT INTO {_quoted(self._name)} (op, at, {_cells('after', columns)}) "
            f"SELECT 'read', {_NOW}, {', '.join(_quoted(name) for name in columns)} "
            f"FROM {_quoted(self._table)}"
        )

    @property
    def _about(self) -> str:
        return _quoted(self._name + "_epoch")

    def _trigger(self, op: RowOp, columns: tuple[str, ...]) -> str:
        into, values = [], []
        for side, row, ops in (("before", "OLD", OPS[1:]), ("after", "NEW", OPS[:2])):
            if op in ops:
                into.append(_cells(side, columns))
                values += [f"{row}.{_quoted(name)}" for name in columns]
        outbox = _quoted(self._name)
        # SQLite's own count starts again where an author deletes it while the outbox is empty.
        position = f"max(coalesce((SELECT max(position) FROM {outbox}), 0), (SELECT told FROM {self._about})) + 1"
        return (
            f"CREATE TRIGGER {_quoted(f'{self._name}_{op}')} AFTER {op} ON {_quoted(self._table)} BEGIN "
            f"INSERT INTO {outbox} (position, op, at, {', '.join(into)}) "
            f"VALUES ({position}, '{op}', {_NOW}, {', '.join(values)}); END"
        )

    def _pragma(self, name: str) -> int:
        return cast("int", self._db.pragma(name))

    def _trouble(self, error: apsw.Error) -> Unavailable:
        return Unavailable(f"the database `{self._path}` cannot be used now: {error}")


def _file(path: str) -> tuple[int, int] | None:
    """The file that the path names, by device and inode; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if S_ISREG(found.st_mode) else None


def _folded(name: str) -> str:
    """The name as SQLite compares it: its ASCII letters alone have no case."""
    return name.translate(_FOLDED)


def _change(row: Sequence[Any], columns: tuple[str, ...], encoding: str) -> RowChange:
    position, op, at = row[:3]
    half = 3 + 2 * len(columns)
    before = _row(row[3:half], columns, encoding) if op in OPS[1:] else None
    after = _row(row[half:], columns, encoding) if op != "delete" else None
    return RowChange(op, before, after, str(position), max(at, 0))


def _row(cells: Sequence[Any], columns: tuple[str, ...], encoding: str) -> Row:
    return {
        name: value.decode(encoding, errors="replace") if text else plain(value)
        for name, text, value in zip(columns, cells[::2], cells[1::2], strict=True)
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cells(side: str, columns: Iterable[str]) -> str:
    return ", ".join(_quoted(f"{side}_{name}") for name in columns)
