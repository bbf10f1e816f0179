"""PostgreSQL's logical replication messages (pgoutput, version 1) as row changes. Pure.

In: messages in the order the server sends them. Out: changes, each with its place in its
transaction; the place is the same however often the server sends the transaction again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace.model.errors import Corrupt
from headrace.model.triggers.tables import RowOp
from headrace.sources.tables.row_events import RowChange, plain

# PostgreSQL counts microseconds from 2000-01-01.
EPOCH_2000_US: Final = 946_684_800_000_000

# Type oids of the catalog (pg_type), which never change: int8, int2, int4, oid.
WHOLE: Final = frozenset({20, 21, 23, 26})
FLOATS: Final = frozenset({700, 701})
_ROW_OPS: Final[dict[bytes, RowOp]] = {b"I": "insert", b"U": "update", b"D": "delete"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the server describes it."""

    name: str
    oid: int
    key: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A change, the place of its transaction, and how many of its changes are read with this one."""

    change: RowChange
    lsn: int
    done: int


class Decoder:
    """Reads one connection's messages. Begin a new one with each connection.

    Attributes:
        open: True within a transaction.
        ended: Where the last whole transaction ends, to be confirmed once it is appended.
    """

    def __init__(self) -> None:
        self.open = False
        self.ended = 0
        self._relations: dict[int, tuple[Column, ...]] = {}
        self._lsn = self._time = self._count = 0

    def feed(self, data: bytes) -> Placed | None:
        """The change that the message describes; None for one that only describes later messages.

        Raises:
            Corrupt: It is no such message.
        """
        try:
            return self._feed(data)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise Corrupt(f"a replication message cannot be read: {error!r}") from error

    def _feed(self, data: bytes) -> Placed | None:
        kind, read = data[:1], _MessageReader(data)
        match kind:
            case b"B":
                self._lsn, time, _ = read.take(">qqi")
                self._time = time + EPOCH_2000_US
                self._count = 0
                self.open = True
            case b"C":
                _, _, self.ended, _ = read.take(">bqqq")
                self.open = False
            case b"R":
                (number,) = read.take(">I")
                read.text(), read.text()
                _, count = read.take(">ch")
                # Sent once per connection and again after ALTER TABLE, always before the first
                # change that uses it.
                self._relations[number] = tuple(_column(read) for _ in range(count))
            case b"I" | b"U" | b"D":
                return self._row(_ROW_OPS[kind], read)
            case b"T":
                return self._placed("truncate", None, None, ())
            case _:
                # Origins, types and messages of others say nothing of rows.
                pass
        return None

    def _row(self, op: RowOp, read: _MessageReader) -> Placed:
        (number,) = read.take(">I")
        columns = self._relations[number]
        before: dict[str, Any] | None = None
        after: dict[str, Any] | None = None
        missing: tuple[str, ...] = ()
        for part in read.parts():
            row, left = _tuple(read, columns)
            if part == b"N":
                after, missing = row, left
            elif part == b"K":
                # Of a row that is known by its key only, the other columns are not null.
                before = {each.name: row[each.name] for each in columns if each.key}
            else:
                before = row
        if after is not None and before is not None:
            # A large value that is stored out of line (TOAST) and did not change is sent only in the old row.
            after |= {name: before[name] for name in missing if name in before}
            missing = tuple(name for name in missing if name not in after)
        return self._placed(op, before, after, missing)

    def _placed(
        self,
        op: RowOp,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
        unchanged: tuple[str, ...],
    ) -> Placed:
        # Place of the commit, and the number within it: the same when the transaction is sent
        # again.
        position = f"{lsn_text(self._lsn)}/{self._count}"
        self._count += 1
        change = RowChange(op, before, after, position, self._time, unchanged)
        return Placed(change, self._lsn, self._count)


class _MessageReader:
    """A cursor over one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return found

    def text(self) -> str:
        end = self._data.index(0, self._at)
        found = self._data[self._at : end].decode(errors="replace")
        self._at = end + 1
        return found

    def raw(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def parts(self) -> Iterator[bytes]:
        while self._at < len(self._data):
            yield self.raw(1)


def _column(read: _MessageReader) -> Column:
    (flags,) = read.take(">b")
    name = read.text()
    oid, _ = read.take(">Ii")
    return Column(name, oid, bool(flags & 1))


def _tuple(
    read: _MessageReader, columns: tuple[Column, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    (count,) = read.take(">h")
    row: dict[str, Any] = {}
    left = []
    for column in columns[:count]:
        kind = read.raw(1)
        if kind == b"n":
            row[column.name] = None
        # An unchanged TOAST value: the server did not read it, and does not send it.
        elif kind == b"u":
            left.append(column.name)
        else:
            (size,) = read.take(">i")
            row[column.name] = value_of(read.raw(size), column.oid)
    return row, tuple(left)


def value_of(text: bytes, oid: int) -> Any:
    """A value of the type `oid` in PostgreSQL's text form, as JSON can hold it; exact, or text."""
    match oid:
        # NUMERIC is not among them: JSON numbers are floats to most readers, and would lose
        # digits.
        case _ if oid in WHOLE:
            return int(text)
        case _ if oid in FLOATS:
            return plain(float(text))
        case 16:  # bool
            return text == b"t"
        case 17 if text.startswith(b"\\x"):
            return plain(bytes.fromhex(text[2:].decode()))
        case 114 | 3802:  # json, jsonb
            # Numbers of any length stay as they are written.
            return msgspec.Raw(text)
        case _:
            return text.decode(errors="replace")


def lsn_text(lsn: int) -> str:
    """A place in the server's log as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """The same as a number."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)
