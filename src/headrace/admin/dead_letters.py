"""Dead letters: list, show, edit, redrive in order, and discard.

A redriven event becomes the first waiting event of its key, which the partition's worker then
drains: later events of the key wait behind it until it is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.commit.changes import dead_row_key, waiting_row_key
from headrace.delivery.parked import (
    DRAINING,
    decode_event,
    encode_event,
    lane_of,
    parked_key_key,
)
from headrace.delivery.positions import decode_waiting, encode_waiting
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.model.effects import Change, Check, DeadEvent, Delete, Edit, Put, Space
from headrace.model.errors import Conflict, Invalid, Misuse, Unknown
from headrace.model.record import Position
from headrace.storage.kv.base import Commit, Storage, scan_pages
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.queue_leases import lease_key

EDITED_HEADER: Final = "headrace-edited"
"""The time at which an operator changed the event's value, and the operator."""
MAX_EDITS: Final = 16
"""Changes of one dead letter that are kept: the first, and the latest."""
PAGE = 500
SHOWN = 50
"""Dead letters that are read in one step: each row holds its whole event."""


class DeadLetters:
    """The operator's view of the dead letters."""

    def __init__(self, storage: Storage, supervisor: PartitionSupervisor, clock: Clock) -> None:
        self._storage = storage
        self._supervisor = supervisor
        self._clock = clock

    async def list(
        self, function: str | None = None, *, limit: int = 100, after: str = ""
    ) -> list[DeadEvent]:
        """Return dead letters by function and position; `after` is the last page's `function@position`."""
        prefix = pack(function) if function is not None else b""
        low = _row_key(after) + b"\x00" if after else prefix
        found: list[DeadEvent] = []
        slices = Slices(self._clock)
        while len(found) < limit:
            size = min(SHOWN, limit - len(found))
            page = await self._storage.scan(Space.DEAD, low, _end(prefix), limit=size)
            found += [decode_waiting(value) for _, value in page]
            if len(page) < size:
                break
            # The smallest key after the last one.
            low = page[-1][0] + b"\x00"
            await slices.step()
        return found

    async def get(self, function: str, position: Position) -> DeadEvent:
        """Return one dead letter.

        Raises:
            Unknown: There is none of this function at this position.
        """
        key = pack(function, position.stream, position.partition, position.offset)
        row = await self._storage.get(Space.DEAD, key)
        if row is None:
            raise Unknown(
                f"`{function}` has no dead letter at `{position}`; `headrace dead list` shows all"
            )
        return decode_waiting(row)

    async def edit(self, function: str, position: Position, value: bytes, by: str) -> DeadEvent:
        """Change the value of a dead letter; the original, the times and the operators are kept.

        Raises:
            Unknown: There is none of this function at this position.
        """
        found: list[DeadEvent] = []

        async def work(commit: Commit) -> None:
            # Read while the partition's only writer is paused: it may have been redriven
            # meanwhile.
            dead = edited(await self.get(function, position), value, by, self._clock.now())
            put = Put(Space.DEAD, dead_row_key(dead), encode_waiting(dead))
            await commit(Change(puts=(put,)))
            found.append(dead)

        await self._supervisor.with_owner(function, position.stream, position.partition, work)
        return found[0]

    async def redrive(
        self,
        function: str,
        positions: Sequence[Position] | None = None,
        *,
        value: bytes | None = None,
        by: str = "",
    ) -> int:
        """Deliver dead letters to their function again; all of them if no position is given.

        Args:
            function: The function.
            positions: The dead letters; None for all.
            value: A new value for the single dead letter, changed and delivered in one step.
            by: The operator who gave the value.

        Raises:
            Unknown: There is none at one of the positions.
            Misuse: A value is given for all, or for several.
        """
        if value is not None and (positions is None or len(positions) != 1):
            raise Misuse("a new value is for one dead letter; name its position")
        count = 0
        for dead in await self._chosen(function, positions):

            async def work(commit: Commit, dead: DeadEvent = dead) -> None:
                nonlocal count
                while True:
                    # Read while the partition's only writer is paused: of two concurrent requests
                    # the second finds nothing.
                    row = await self._storage.get(Space.DEAD, dead_row_key(dead))
                    if row is None:
                        return
                    found = decode_waiting(row)
                    if value is not None:
                        found = edited(found, value, by, self._clock.now())
                    try:
                        await commit(_redriven(found, row))
                    except Conflict:
                        # A concurrent `discard`, which does not pause the writer, has changed the
                        # row: read it again.
                        continue
                    count += 1
                    return

            at = dead.position
            await self._supervisor.with_owner(function, at.stream, at.partition, work)
        return count

    async def discard(self, function: str, positions: Sequence[Position] | None = None) -> int:
        """Delete dead letters permanently; all of the function's if no position is given.

        Raises:
            Unknown: There is none at one of the positions.
            Conflict: One of them was edited or redriven meanwhile; what was deleted before stays so.
        """
        chosen = await self._chosen(function, positions)
        for start in range(0, len(chosen), PAGE):
            keys = [dead_row_key(dead) for dead in chosen[start : start + PAGE]]
            rows = zip(keys, await self._storage.get_many(Space.DEAD, keys), strict=True)
            there = [(key, row) for key, row in rows if row is not None]
            await self._supervisor.committer.commit(
                Change(
                    # Only as they were read: a letter that was edited meanwhile is not what the
                    # operator meant.
                    checks=tuple(Check(Space.DEAD, key, row) for key, row in there),
                    deletes=tuple(Delete(Space.DEAD, key) for key, _ in there),
                )
            )
        return len(chosen)

    async def _chosen(
        self, function: str, positions: Sequence[Position] | None
    ) -> Sequence[DeadEvent]:
        if positions is not None:
            return [await self.get(function, position) for position in positions]
        chosen: list[DeadEvent] = []
        prefix = pack(function)
        async for page in scan_pages(self._storage, Space.DEAD, prefix, after(prefix), limit=PAGE):
            chosen.extend(decode_waiting(value) for _, value in page)
        return chosen


def _redriven(dead: DeadEvent, row: bytes) -> Change:
    """Return the change that puts a dead letter, stored as `row`, in front of its key's waiting events."""
    # A redrive starts with all attempts.
    at, again = dead.position, msgspec.structs.replace(dead, spent=0, due=0)
    lane = lane_of(decode_event(dead.event), at.offset)
    key = parked_key_key(dead.function, at.stream, at.partition, lane)
    return Change(
        checks=(Check(Space.DEAD, dead_row_key(dead), row),),
        puts=(
            Put(Space.PARKED, waiting_row_key(dead), encode_waiting(again)),
            Put(Space.PARKED_KEYS, key, DRAINING),
        ),
        deletes=(
            Delete(Space.DEAD, dead_row_key(dead)),
            # A lease of the former delivery would count as its answer.
            Delete(Space.META, lease_key(dead.function, at)),
        ),
    )


def edited(dead: DeadEvent, value: bytes, by: str, now: int) -> DeadEvent:
    """Return the dead letter with another value. A header of its event names the time and the operator."""
    event = decode_event(dead.event)
    # A hash: values may be large, and the first and the current one are kept whole.
    mark = Edit(now, by, hashlib.sha256(event.value).hexdigest())
    moment = datetime.fromtimestamp(now / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    headers = {**(event.headers or {}), EDITED_HEADER: f"{moment} {by}"}
    return msgspec.structs.replace(
        dead,
        event=encode_event(msgspec.structs.replace(event, value=value, headers=headers)),
        original=dead.original or dead.event,
        # The first edit is always kept, as `original` is the event before it.
        edits=(*dead.edits[:1], *dead.edits[1:][-(MAX_EDITS - 2) :], mark),
    )


def _end(prefix: bytes) -> bytes | None:
    return after(prefix) if prefix else None


def _row_key(text: str) -> bytes:
    function, _, place = text.partition("@")
    parts = place.rsplit("/", 2)
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        raise Invalid(f"`{text}` is not a place in the list; write `app.function@stream/0/42`")
    return pack(function, parts[0], int(parts[1]), int(parts[2]))
