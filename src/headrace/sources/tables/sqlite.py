"""Source of a table's changes in an SQLite database: read from its outbox, appended, then deleted.

The position is in the checkpoint, which lands in one change with the events; a row that
is found again because the node died before it could delete it is skipped. So nothing is appended twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.wait_until import wait_until
from headrace.model.errors import Fenced, Misuse, Unavailable
from headrace.model.triggers.tables import SqlTable
from headrace.sources.base import SourceAppender, open_checkpoint
from headrace.sources.foreign.base import ForeignMessage
from headrace.sources.foreign.feed import fitted, parts
from headrace.sources.tables.row_events import RowChange, events_of, slot_of
from headrace.sources.tables.sqlite_outbox import Outbox, OutboxProgress, is_busy

PAGE: Final = 500
"""Rows appended at once."""
BUSY_S: Final = 10.0
"""A database that others lock for longer without a break is reported as a failure."""


_decode = msgspec.msgpack.Decoder(OutboxProgress).decode


class OutboxSource:
    """The source of one `SqlTable` in SQLite.

    Args:
        threads: Whether the outbox may be made on a thread: a large table would block the loop.
    """

    def __init__(self, trigger: SqlTable, clock: Clock, *, threads: bool) -> None:
        self._trigger = trigger
        self._clock = clock
        self._threads = threads
        self._busy_since: float | None = None

    async def run(self, appender: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Unavailable: The database or its table is not there, or busy; begin again.
            Misuse: The table's rows have no key, or changes of them were lost.
        """
        while True:
            await self._read_file(appender, slot_of(self._trigger, appender.stream))

    async def _read_file(self, appender: SourceAppender, slot: str) -> None:
        """Watch until the path names another file."""
        outbox = Outbox(self._trigger.path, self._trigger.table, slot, self._trigger.keys)
        try:
            await self._install(outbox)
            while True:
                try:
                    return await self._watch(appender, outbox, slot)
                except Fenced:
                    # Another node has appended; continue from its checkpoint.
                    await self._pause()
                except Unavailable as error:
                    # A short lock by the author's program is normal and must not show as a failed
                    # source.
                    if not is_busy(error) or self._is_held():
                        raise
                    await self._pause()
        finally:
            outbox.close()

    def _is_held(self) -> bool:
        """Return True where others have locked the database for `BUSY_S`, without a break."""
        now = self._clock.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since > BUSY_S

    async def _install(self, outbox: Outbox) -> None:
        if self._threads:
            await asyncio.to_thread(outbox.install, snapshot=self._trigger.snapshot)
        else:
            outbox.install(snapshot=self._trigger.snapshot)

    async def _watch(self, appender: SourceAppender, outbox: Outbox, slot: str) -> None:
        row = await appender.checkpoint()
        mark = None if row is None else open_checkpoint(row, appender.stream, _decode)
        if mark is None or mark.slot != slot:
            mark = OutboxProgress(slot, outbox.epoch)
        left = True
        while not outbox.moved():
            if outbox.altered():
                await self._install(outbox)
            # `data_version` changes with each commit of another connection: an idle database costs
            # no query.
            if not outbox.changed() and not left:
                await self._pause()
                continue
            found = outbox.read(mark, PAGE)
            self._busy_since = None
            if found is None:
                mark = await self._started_again(appender, outbox, slot)
                continue
            changes, key = found
            messages = [
                ForeignMessage(fitted(event), after)
                for change, after in changes
                for event in events_of(
                    change,
                    table=self._trigger.table,
                    key=key,
                    stream=appender.stream,
                    origin=f"{outbox.epoch:x}.",
                )
            ]
            at = 0
            for part in parts(messages):
                at += len(part)
                hit("feed:before-append")
                # A row of two events counts only when both are appended.
                last = part[-1].receipt
                whole = at == len(messages) or messages[at].receipt != last
                mark = _before(last, changes, mark) if not whole else last
                await appender.emit(
                    [message.event for message in part], checkpoint=msgspec.msgpack.encode(mark)
                )
                hit("feed:after-append")
            if outbox.moved():
                # A write here would leave its journal next to the other file.
                break
            appender.works()
            # What stays because another program is writing is deleted at the next look.
            left = not outbox.forget(mark)
            hit("feed:after-acknowledge")
            if len(changes) < PAGE:
                await self._pause()

    async def _started_again(
        self, appender: SourceAppender, outbox: Outbox, slot: str
    ) -> OutboxProgress:
        """The mark of an outbox that is not the one that was read: all rows are read again.

        Raises:
            Fenced: Another node has appended meanwhile; it is the same outbox.
            Misuse: The rows are not to be read again.
        """
        known = appender.row
        # Another node's progress looks like a database that was put back: its rows are ahead of
        # our mark.
        if await appender.checkpoint() != known:
            raise Fenced(f"another node feeds `{appender.stream}`")
        if not self._trigger.snapshot:
            raise Misuse(
                f"the database `{self._trigger.path}` was replaced or put back to an earlier state: "
                f"what that did to `{self._trigger.table}` is not known; start again with another `slot=`"
            )
        outbox.start_again()
        return OutboxProgress(slot, outbox.epoch)

    async def _pause(self) -> None:
        await wait_until(self._clock, self._clock.now() + round(self._trigger.poll * 1_000_000))


def _before(
    last: OutboxProgress, changes: Sequence[tuple[RowChange, OutboxProgress]], mark: OutboxProgress
) -> OutboxProgress:
    """The mark of the change that comes before that of `last`; `mark` where it is the first."""
    return max(
        (each for _, each in changes if each.position < last.position),
        key=lambda each: each.position,
        default=mark,
    )
