"""Source of a table's changes in PostgreSQL: first the rows that are there, then their changes.

The rows are copied to a file from the snapshot the slot begins at, read from there, and then the
slot's stream continues exactly behind it. The position is in the checkpoint, in
one change with the events; only then is it confirmed to the server, which may remove its log.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
from msgspec.structs import replace
from psycopg import sql

from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.model.errors import Corrupt, Misuse
from headrace.model.triggers.tables import SqlTable
from headrace.sources.base import SourceAppender, open_checkpoint
from headrace.sources.foreign.base import ForeignMessage
from headrace.sources.foreign.feed import fitted, parts
from headrace.sources.tables.pgoutput import Decoder, lsn_number
from headrace.sources.tables.postgres_connection import (
    About,
    Replica,
    about_table,
    not_streamed,
    unpublished,
)
from headrace.sources.tables.row_events import RowChange, events_of, slot_of

PAGE: Final = 500
"""Changes appended at once."""
STATUS_S: Final = 1.0
"""How often the server hears from us, at least."""


class TableProgress(msgspec.Struct, array_like=True, frozen=True):
    """The position in a table's changes.

    Attributes:
        slot, table: Of which reader.
        phase: `making` the slot and the copy, `reading` the copy, or `streaming`.
        lsn: The last transaction that was appended, in the streaming phase.
        done: How many of its changes were appended; in the reading phase, bytes of the copy.
    """

    slot: str
    table: str
    phase: Literal["making", "reading", "streaming"]
    lsn: int = 0
    done: int = 0


FRAME: Final = struct.Struct(">Q")
"""The length of a row of the copy, in bytes."""
_decode = msgspec.msgpack.Decoder(TableProgress).decode
_encode = msgspec.msgpack.Encoder().encode


class ReplicationSource:
    """The source of one `SqlTable` in PostgreSQL.

    Args:
        folder: Where the copy is kept until it is appended; None where the node has none.
    """

    def __init__(self, trigger: SqlTable, clock: Clock, folder: Path | None) -> None:
        self._trigger = trigger
        self._clock = clock
        self._folder = folder

    async def run(self, appender: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Unavailable: The database cannot be reached, or another node reads the slot.
            Fenced: Another node has appended; begin again from its checkpoint.
            Misuse: The table cannot be watched, or its slot is gone.
        """
        stream, queries = (Replica(self._trigger.url, self._clock) for _ in range(2))
        try:
            await queries.connect(replication=False)
            await stream.connect(replication=True)
            about = await about_table(queries, self._trigger.table, self._trigger.keys)
            # The checkpoint is written before the slot is made, so that a crash in between is
            # recognised and the slot made again.
            mark = await self._prepared(appender, about, stream, queries)
            await queries.close()
            mark = await self._read(appender, about, mark)
            await stream.start(mark.slot, mark.slot)
            appender.works()
            await self._stream(appender, about, mark, stream)
        finally:
            await stream.close()
            await queries.close()

    async def _prepared(
        self, appender: SourceAppender, about: About, stream: Replica, queries: Replica
    ) -> TableProgress:
        """The mark to go on from, with a slot that is there."""
        slot = slot_of(self._trigger, appender.stream)
        table = f"{about.schema}.{about.name}"
        row = await appender.checkpoint()
        mark = None if row is None else open_checkpoint(row, appender.stream, _decode)
        there = bool(
            await queries.ask("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", slot)
        )
        # A slot that is gone cannot be replaced in silence: changes since the last confirmed one
        # are lost.
        if mark is not None and mark.slot == slot and mark.phase != "making":
            if mark.table != table:
                raise Misuse(f"slot `{slot}` is of `{mark.table}`; name another with `slot=`")
            if not there:
                raise Misuse(
                    f"the replication slot `{slot}` is gone, and with it changes of `{table}`; "
                    "start again with another `slot=`"
                )
            if lacking := await unpublished(queries, slot, about):
                raise Misuse(not_streamed(lacking, slot))
            return mark
        # Without our checkpoint the slot is another program's; dropping it would lose its changes.
        if there and (mark is None or mark.slot != slot):
            raise Misuse(
                f"the replication slot `{slot}` belongs to another reader; name another with `slot=`, or "
                f"`SELECT pg_drop_replication_slot('{slot}')`"
            )
        await appender.emit((), checkpoint=_encode(TableProgress(slot, table, "making")))
        # Left by a start that broke off while making it: its snapshot is gone with its connection.
        if there:
            await queries.ask("SELECT pg_drop_replication_slot(%s)", slot)
        return await self._made(
            appender, about, TableProgress(slot, table, "making"), stream, queries
        )

    async def _made(
        self,
        appender: SourceAppender,
        about: About,
        mark: TableProgress,
        stream: Replica,
        queries: Replica,
    ) -> TableProgress:
        slot = mark.slot
        if await unpublished(queries, slot, about):
            await queries.ask(
                sql.SQL(
                    "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)"
                ).format(sql.Identifier(slot), sql.Identifier(about.schema, about.name))
            )
        # The snapshot shows the table exactly as of the slot's beginning: no change is missing
        # between them, and none comes twice.
        how = "EXPORT_SNAPSHOT" if self._trigger.snapshot else "NOEXPORT_SNAPSHOT"
        made = await stream.ask(
            sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {}").format(
                sql.Identifier(slot), sql.SQL(how)
            )
        )
        _, point, snapshot, _ = made[0]
        hit("feed:before-append")
        ready = replace(mark, phase="streaming")
        if self._trigger.snapshot:
            await self._copy(about, slot, snapshot, queries)
            ready = replace(mark, phase="reading", lsn=lsn_number(point))
        await appender.emit((), checkpoint=_encode(ready))
        return ready

    async def _copy(self, about: About, slot: str, snapshot: str, queries: Replica) -> None:
        path = self._path(slot)
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        with path.open("wb") as file:
            async for page in queries.snapshot(about, snapshot):
                for row in page:
                    write_frame(file, msgspec.json.encode(row))
            file.flush()
            # The copy must be on the disk before the checkpoint names it: afterwards the snapshot
            # is gone.
            await asyncio.to_thread(os.fsync, file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # A new file's name is durable only once its folder is.
            os.fsync(folder)
        finally:
            os.close(folder)

    async def _read(
        self, appender: SourceAppender, about: About, mark: TableProgress
    ) -> TableProgress:
        """Append the copy's rows, from the checkpoint to its end."""
        if mark.phase == "streaming":
            return mark
        path = self._path(mark.slot)
        if not path.is_file():
            raise Misuse(
                f"the copy of `{mark.table}` is not on this node (`{path}`); "
                "start again with another `slot=`"
            )
        with path.open("rb") as file:
            file.seek(mark.done)
            # By bytes, since rows differ in size: memory must stay bounded.
            while rows := read_frames(file, size=1 << 18):
                messages: list[ForeignMessage[TableProgress]] = []
                for row in rows:
                    change = RowChange("read", None, _row(row), f"snapshot/{mark.done}")
                    mark = replace(mark, done=mark.done + FRAME.size + len(row))
                    messages += self._messages(change, mark, about, appender.stream)
                await self._emit(appender, messages)
        mark = TableProgress(mark.slot, mark.table, "streaming")
        await appender.emit((), checkpoint=_encode(mark))
        # After the commit: a crash before it needs the copy again.
        path.unlink()
        return mark

    async def _stream(
        self, appender: SourceAppender, about: About, mark: TableProgress, stream: Replica
    ) -> None:
        decoder, safe = Decoder(), 0
        waiting: list[ForeignMessage[TableProgress]] = []
        while True:
            # Waiting changes are appended as soon as nothing more is there; a batch does not wait
            # to be full.
            data = await stream.receive(0 if waiting else STATUS_S)
            if data is not None and data[:1] == b"w":
                placed = decoder.feed(data[25:])
                # The server sends a transaction from its beginning again where only a part was
                # confirmed.
                if placed is not None and (placed.lsn, placed.done) > (mark.lsn, mark.done):
                    after = replace(mark, lsn=placed.lsn, done=placed.done)
                    waiting += self._messages(placed.change, after, about, appender.stream)
                if not decoder.open:
                    safe = max(safe, decoder.ended)
            elif data is not None and not decoder.open:
                # Nothing of ours stands before the place that a keepalive names.
                safe = max(safe, int.from_bytes(data[1:9]))
            if data is None or len(waiting) >= PAGE or data[:1] == b"k":
                if waiting:
                    await self._emit(appender, waiting)
                    mark, waiting = waiting[-1].receipt, []
                if not decoder.open or data is None:
                    # Only between transactions: what is confirmed is not sent again, and a part
                    # cannot be confirmed.
                    stream.confirm(safe)
                    hit("feed:after-acknowledge")

    def _messages(
        self, change: RowChange, mark: TableProgress, about: About, stream: str
    ) -> list[ForeignMessage[TableProgress]]:
        events = events_of(
            change,
            table=f"{about.schema}.{about.name}",
            key=about.key,
            stream=stream,
            origin=f"{mark.slot}.",
        )
        return [ForeignMessage(fitted(event), mark) for event in events]

    async def _emit(
        self, appender: SourceAppender, messages: Sequence[ForeignMessage[TableProgress]]
    ) -> None:
        at = 0
        for part in parts(messages):
            at += len(part)
            hit("feed:before-append")
            mark = part[-1].receipt
            if at < len(messages) and messages[at].receipt == mark:
                # A row of two events counts only when both are appended.
                mark = replace(mark, done=mark.done - 1)
            await appender.emit([message.event for message in part], checkpoint=_encode(mark))
            hit("feed:after-append")

    def _path(self, slot: str) -> Path:
        if self._folder is None:
            raise Misuse("this node has no data folder for the copy; use `snapshot=False`")
        return self._folder / "tables" / f"{slot}.rows"


def write_frame(file: BinaryIO, row: bytes) -> None:
    """Append a row to the copy, behind its length.

    JSON columns come as they were written, and may hold newlines.
    """
    file.write(FRAME.pack(len(row)))
    file.write(row)


def read_frames(file: BinaryIO, *, size: int) -> list[bytes]:
    """The next rows of the copy, of about `size` bytes together; none at its end.

    Raises:
        Corrupt: It ends within a row.
    """
    rows: list[bytes] = []
    taken = 0
    while taken < size and (head := file.read(FRAME.size)):
        length = FRAME.unpack(head)[0] if len(head) == FRAME.size else -1
        row = file.read(length) if length >= 0 else b""
        if len(row) != length:
            raise Corrupt("the copy of a table ends within a row; start again with another `slot=`")
        rows.append(row)
        taken += FRAME.size + length
    return rows


def _row(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line, type=dict[str, Any])
