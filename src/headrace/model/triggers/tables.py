"""The trigger that watches a table of the author's own database, row by row: `SqlTable`.

It is a value; what serves it stands in `triggers/tables`. Bad settings are refused when written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec.structs import force_setattr

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default

RowOp = Literal["read", "insert", "update", "delete", "truncate"]
Row = Mapping[str, Any]

SLOT_LENGTH: Final = 63
_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}")


class SqlTable(PolicyStruct, frozen=True, tag="table"):
    """Rows of a table are inserted, updated or deleted. One event for each change, in order per row.

    Attributes:
        url: `sqlite:///folder/file.db` (four slashes for an absolute path), or
            `postgresql://user@host:5432/database`, without a password: libpq's password file and
            service file on the node are used.
        table: The table's name; in PostgreSQL with its schema, which is otherwise `public`.
        key_columns: The columns that name a row; none means the table's primary key.
        slot: What the database calls this reader: its outbox or its replication slot. None makes a
            name of the function's. Another name begins again.
        snapshot: Whether rows that are there at the first start are events, as `read`.
        poll: SQLite only: the time between two looks.
    """

    url: str
    table: str
    key_columns: str | tuple[str, ...] = ()
    slot: str | None = None
    snapshot: bool = True
    poll: Seconds = default(0.2)

    def __post_init__(self) -> None:
        """Keep the key as a tuple; refuse what cannot be watched.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        table: Any = self.table
        if not isinstance(table, str) or not table or "\x00" in table:
            raise Misuse(f'`SqlTable(...)`: `table={table!r}` is not a table; write `"orders"`')
        what = f"SqlTable(..., {table!r})"
        url: Any = self.url
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in {"sqlite", "postgresql"} or len(parts.path) < 2:
            raise Misuse(
                f'`{what}`: write the database as "sqlite:///file.db" or '
                '"postgresql://user@host/database"'
            )
        if parts.password is not None or any("passw" in name for name, _ in parse_qsl(parts.query)):
            raise Misuse(
                f"`{what}`: take the password out of the address, which is shown with the "
                "function; put it into the node's `~/.pgpass`"
            )
        if parts.scheme == "sqlite" and parts.netloc:
            raise Misuse(f'`{what}`: a file is written with three slashes: "sqlite:///file.db"')
        key: Any = self.key_columns
        names = (key,) if isinstance(key, str) else tuple(key)
        if not all(isinstance(name, str) and name for name in names):
            raise Misuse(
                f'`{what}`: `key_columns={key!r}` is not a column; write `key_columns="id"`'
            )
        force_setattr(self, "key_columns", names)
        if self.slot is not None and not _SLOT.fullmatch(self.slot):
            raise Misuse(
                f"`{what}`: `slot={self.slot!r}`; use up to {SLOT_LENGTH} of a-z, 0-9 and `_`"
            )
        keep_seconds(self, "poll", low=0.05, high=86_400, what=f"`poll=` of `{what}`")

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the key, as they were given."""
        return self.key_columns if isinstance(self.key_columns, tuple) else (self.key_columns,)

    @property
    def scheme(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.partition(":")[0]

    @property
    def path(self) -> str:
        """The file of an SQLite database; a relative one counts from where the node was started."""
        return urlsplit(self.url).path[1:]


def key_of(row: Row, key: tuple[str, ...]) -> str | None:
    """The event key of a row; None where a part of it is not known."""
    if not key or any(name not in row for name in key):
        return None
    if len(key) == 1:
        value = row[key[0]]
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return msgspec.json.encode([row[name] for name in key]).decode()
