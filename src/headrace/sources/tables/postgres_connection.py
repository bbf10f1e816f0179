"""A connection to PostgreSQL: what a table is, its slot, its snapshot, and the stream of its changes.

psycopg speaks the protocol up to COPY BOTH; from there on the bytes are libpq's. Its errors become
ours here. Values come in the server's text form, with settings that make it one form everywhere.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from headrace.environment.clock import Clock
from headrace.model.errors import Misuse, Unavailable
from headrace.sources.tables.pgoutput import EPOCH_2000_US, value_of
from headrace.sources.tables.replica_identity import (
    PARTITIONED,
    TABLE,
    Relation,
    refusal,
    streamed,
)

SETTINGS: Final = (
    "-c client_encoding=UTF8 -c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC "
    "-c bytea_output=hex -c extra_float_digits=1"
)
CONNECT_S: Final = 10
PAGE: Final = 1_000
# Errors that trying again does not mend: an operator must change something.
FOR_GOOD: Final = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.InvalidPassword,
    psycopg.errors.InvalidAuthorizationSpecification,
)


class About(NamedTuple):
    """Description of a table.

    Attributes:
        schema, name, columns: As the database has them.
        key: The columns that name a row.
        streamed: Under which tables' names its changes come: its own, and of those that inherit from it.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    streamed: tuple[tuple[str, str], ...]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Psycopg's errors as ours."""
    try:
        yield
    except FOR_GOOD as error:
        raise Misuse(f"{doing}: {error}") from error
    except psycopg.Error as error:
        raise Unavailable(f"{doing}: {error}") from error


class Replica:
    """One walsender. Used by one task."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def connect(self, *, replication: bool) -> None:
        """Connect, for replication or for questions.

        Raises:
            Misuse: Access is refused.
            Unavailable: It cannot be reached now.
        """
        extra = {"replication": "database"} if replication else {}
        with translated("the database cannot be reached"):
            address = make_conninfo(
                self._url,
                options=SETTINGS,
                connect_timeout=CONNECT_S,
                application_name="headrace",
                **extra,
            )
            # autocommit: CREATE_REPLICATION_SLOT and START_REPLICATION are refused within a
            # transaction.
            self._connection = await psycopg.AsyncConnection.connect(address, autocommit=True)

    async def close(self) -> None:
        """Let go; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def ask(
        self, query: sql.Composed | LiteralString, *values: object
    ) -> list[tuple[Any, ...]]:
        """The rows of the answer."""
        with translated("the database refused"):
            cursor = await self._open.execute(query, values or None)
            return await cursor.fetchall() if cursor.description else []

    async def snapshot(self, about: About, name: str) -> AsyncIterator[list[dict[str, Any]]]:
        """The rows as the exported snapshot `name` shows them, page by page."""
        # SET TRANSACTION SNAPSHOT needs this level, and must be the transaction's first statement.
        await self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await self.ask(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
        await self.ask(
            # A cursor: a plain SELECT would be held in memory as a whole.
            sql.SQL("DECLARE pages NO SCROLL CURSOR FOR SELECT {} FROM {}").format(
                sql.SQL(", ").join(sql.Identifier(column) for column in about.columns),
                sql.Identifier(about.schema, about.name),
            )
        )
        while True:
            with translated("the snapshot broke off"):
                cursor = await self._open.execute(f"FETCH {PAGE} FROM pages")
            found = cursor.pgresult
            if found is None or not found.ntuples:
                return
            oids = [found.ftype(column) for column in range(found.nfields)]
            yield [
                {
                    name: None
                    if (raw := found.get_value(row, at)) is None
                    else value_of(raw, oids[at])
                    for at, name in enumerate(about.columns)
                }
                for row in range(found.ntuples)
            ]

    async def start(self, slot: str, publication: str) -> None:
        """Begin to stream what was not confirmed to the slot.

        Raises:
            Misuse: The slot is lost.
            Unavailable: Another node streams from it.
        """
        query = (
            # 0/0: from the last confirmed position, which the server keeps with the slot.
            f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 '
            f"(proto_version '1', publication_names '\"{publication}\"')"
        )
        connection = self._open.pgconn
        with translated("the stream cannot begin"):
            connection.send_query(query.encode())
            # The socket is non-blocking: what did not fit is sent in the next round.
            while connection.flush():
                await self._clock.sleep(0.01)
            while connection.is_busy():
                await self._readable(None)
            result = connection.get_result()
            if result is None or result.status != psycopg.pq.ExecStatus.COPY_BOTH:
                raise psycopg.errors.error_from_result(result) if result else Unavailable("closed")

    async def receive(self, seconds: float) -> bytes | None:
        """The next message as it came; None where none came for so long.

        Raises:
            Unavailable: The connection is lost.
        """
        connection = self._open.pgconn
        while True:
            with translated("the stream broke off"):
                # 1: without blocking. psycopg has no asynchronous interface to COPY BOTH.
                size, data = connection.get_copy_data(1)
                if size > 0:
                    return bytes(data)
                if size < 0:
                    result = connection.get_result()
                    raise Unavailable(
                        f"the stream ended: {result.error_message.decode() if result else ''}"
                    )
                if seconds <= 0 or not await self._readable(seconds):
                    return None

    def confirm(self, lsn: int) -> None:
        """Confirm to the server that everything up to `lsn` is on our disk."""
        now = self._clock.now() - EPOCH_2000_US
        with translated("the stream broke off"):
            self._open.pgconn.put_copy_data(struct.pack(">cqqqqb", b"r", lsn, lsn, lsn, now, 0))
            self._open.pgconn.flush()

    async def _readable(self, seconds: float | None) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        socket = self._open.pgconn.socket
        loop.add_reader(socket, lambda: None if ready.done() else ready.set_result(None))
        try:
            await self._clock.timeout(ready, seconds)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(socket)
        self._open.pgconn.consume_input()
        return True

    @property
    def _open(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None:
            raise Unavailable("the database is not connected")
        return self._connection


async def about_table(replica: Replica, table: str, key: tuple[str, ...]) -> About:
    """Describe the table, and the columns that identify its rows.

    Raises:
        Misuse: Changes of its rows could not be read.
        Unavailable: It is not there.
    """
    if (await replica.ask("SHOW wal_level"))[0][0] != "logical":
        raise Misuse("the server does not stream changes: set `wal_level = logical`, restart it")
    schema, _, name = table.rpartition(".")
    found = await replica.ask(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = %s",
        schema or "public",
        name,
    )
    if not found:
        raise Unavailable(f"the database has no table `{table}`; create it")
    oid = found[0][0]
    relations = [_relation(row) for row in await replica.ask(RELATIONS, oid)]
    columns = await replica.ask(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped "
        # Generated columns are not in the replication stream, so the snapshot leaves them out too.
        "AND attgenerated = '' ORDER BY attnum",
        oid,
    )
    about = About(
        schema or "public",
        name,
        tuple(column for (column,) in columns),
        key or relations[0].primary,
        tuple((each.schema, each.table) for each in streamed(relations)),
    )
    refused = refusal(relations, about.key)
    is_known = about.key and not set(about.key) - set(about.columns)
    if not is_known and relations[0].kind in {TABLE, PARTITIONED}:
        raise Misuse(
            f'`{table}` is not known by `{key}`; say which columns name a row: `key_columns="id"`'
        )
    if refused is not None:
        # Publishing it would make the author's own updates fail, or hide a row's key.
        raise Misuse(refused)
    return about


async def unpublished(replica: Replica, publication: str, about: About) -> list[str]:
    """Of which tables changes are not streamed; one that was dropped is in no publication any more."""
    found = await replica.ask(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", publication
    )
    there = {(str(schema), str(name)) for schema, name in found}
    return [f"{schema}.{name}" for schema, name in about.streamed if (schema, name) not in there]


def not_streamed(tables: Sequence[str], slot: str) -> str:
    """The error where a publication lacks `tables`, and what to do."""
    return (
        f"`{tables[0]}` was created again, added since, or taken out of the publication `{slot}`: its changes "
        "are not streamed; start again with another `slot=`"
    )


RELATIONS: Final = (
    "WITH RECURSIVE tree (oid, depth) AS (SELECT %s::oid, 0 UNION "
    "SELECT inhrelid, depth + 1 FROM pg_inherits JOIN tree ON inhparent = tree.oid) "
    "SELECT c.oid::regclass::text, nspname::text, relname::text, relkind::text, relispartition, "
    "relreplident::text, relpersistence::text, ARRAY(SELECT attname::text FROM pg_index i "
    "JOIN pg_attribute a ON a.attrelid = indrelid AND attnum = ANY(indkey) "
    "WHERE indrelid = c.oid AND indisprimary ORDER BY array_position(indkey::int[], attnum::int)) "
    "FROM (SELECT oid, min(depth) AS depth FROM tree GROUP BY oid) AS found "
    "JOIN pg_class c ON c.oid = found.oid JOIN pg_namespace n ON n.oid = relnamespace "
    "ORDER BY depth, 1"
)
"""The table, and all that are parts of it or inherit from it."""


def _relation(row: tuple[Any, ...]) -> Relation:
    return Relation._make((*row[:-1], tuple(row[-1])))
