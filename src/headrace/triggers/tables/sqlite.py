"""Tells of a table's changes in an SQLite database: read from its outbox, appended, then deleted.

The position stands in the outlet's checkpoint, which lands in one change with the events; a row that
is found again because the node died before it could delete it is passed by. So nothing is told twice.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from headrace.model.errors import Corrupt, Fenced, Unavailable
from headrace.model.tables import Table
from headrace.triggers.foreign.base import Message
from headrace.triggers.foreign.feed import fitted, parts
from headrace.triggers.source import Outlet
from headrace.triggers.tables.outbox import Outbox, is_busy
from headrace.triggers.tables.rows import events_of, slot_of
from headrace.world.calendar import wait_until
from headrace.world.clock import Clock
from headrace.world.failpoints import hit

PAGE: Final = 500
"""Rows told at once."""
BUSY_S: Final = 10.0
"""A database that others hold for longer without a break is told of as a failure."""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """How far an outbox was told, and which outbox that was."""

    slot: str
    epoch: int
    position: int


_decode = msgspec.msgpack.Decoder(Mark).decode


class OutboxSource:
    """The source of one `Table` in SQLite.

    Args:
        threads: Whether the outbox may be made beside the loop, which a large table keeps busy.
    """

    def __init__(self, trigger: Table, clock: Clock, *, threads: bool) -> None:
        self._trigger, self._clock, self._threads = trigger, clock, threads
        self._busy_since: float | None = None

    async def run(self, outlet: Outlet) -> None:
        """Watch for ever.

        Raises:
            Unavailable: The database or its table is not there, or busy; begin again.
            Misuse: The table's rows cannot be told apart.
        """
        slot = slot_of(self._trigger, outlet.stream)
        outbox = Outbox(self._trigger.path, self._trigger.table, slot, self._trigger.keys)
        try:
            await self._install(outbox)
            while True:
                try:
                    await self._watch(outlet, outbox, slot)
                except Fenced:
                    # Another node has told; go on from what it remembered.
                    await self._pause()
                except Unavailable as error:
                    if not is_busy(error) or self._is_held():
                        raise
                    await self._pause()
        finally:
            outbox.close()

    def _is_held(self) -> bool:
        """Whether others have held the database for long, without a break to read it in."""
        now = self._clock.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since > BUSY_S

    async def _install(self, outbox: Outbox) -> None:
        if self._threads:
            await asyncio.to_thread(outbox.install, snapshot=self._trigger.snapshot)
        else:
            outbox.install(snapshot=self._trigger.snapshot)

    async def _watch(self, outlet: Outlet, outbox: Outbox, slot: str) -> None:
        position = _position(await outlet.checkpoint(), outbox, slot, outlet.stream)
        left = True
        while True:
            if outbox.altered():
                await self._install(outbox)
            if not outbox.changed() and not left:
                await self._pause()
                continue
            changes, key = outbox.read(position, PAGE)
            self._busy_since = None
            messages = [
                Message(fitted(event), int(change.position))
                for change in changes
                for event in events_of(
                    change,
                    table=self._trigger.table,
                    key=key,
                    stream=outlet.stream,
                    origin=f"{outbox.epoch:x}.",
                )
            ]
            at = 0
            for part in parts(messages):
                at += len(part)
                hit("feed:before-append")
                # A row of two events is told only when both are.
                ends = at == len(messages) or messages[at].receipt != part[-1].receipt
                position = part[-1].receipt if ends else part[-1].receipt - 1
                await outlet.emit(
                    [message.event for message in part],
                    checkpoint=msgspec.msgpack.encode(Mark(slot, outbox.epoch, position)),
                )
                hit("feed:after-append")
            # What stays because somebody else is writing is deleted at the next look.
            left = not outbox.forget(position)
            hit("feed:after-acknowledge")
            if len(changes) < PAGE:
                await self._pause()

    async def _pause(self) -> None:
        await wait_until(self._clock, self._clock.now() + round(self._trigger.poll * 1_000_000))


def _position(row: bytes | None, outbox: Outbox, slot: str, stream: str) -> int:
    if row is None:
        return 0
    try:
        mark = _decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the checkpoint of `{stream}` cannot be read: {error}") from error
    same = (mark.slot, mark.epoch) == (slot, outbox.epoch)
    # A database that was put back to an earlier state gives positions anew.
    return mark.position if same and mark.position <= outbox.last() else 0
