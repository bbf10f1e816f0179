"""Parked keys and stopped partitions: list, redrive and discard."""

from __future__ import annotations

import msgspec

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.commit.changes import waiting_row_key
from headrace.delivery.parked import DRAINING, ParkedKey, lane_name, parked_end, parked_key_key
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import (
    decode_trouble,
    decode_waiting,
    encode_position,
    encode_trouble,
    position_key,
    stored,
)
from headrace.delivery.unit import FOREVER
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.model.effects import Change, Check, DeadEvent, Delete, Put, Space
from headrace.model.errors import Unknown
from headrace.model.outcome import BEHIND
from headrace.storage.kv.base import Commit, Storage, scan_pages
from headrace.storage.kv.keys import after, pack

PAGE = 500
MAX_KEYS, MAX_COUNTED = 10_000, 10_000
"""Maximum keys of one partition, and counted events of one key."""
COUNT_PAGE = 50
"""Parked events that are read in one step: each row holds its whole event."""


class ParkedKeys:
    """Lists parked keys; redrives them in order, or discards them."""

    def __init__(self, storage: Storage, supervisor: PartitionSupervisor, clock: Clock) -> None:
        self._storage = storage
        self._supervisor = supervisor
        self._clock = clock

    async def keys(
        self, function: str | None = None, *, most: int | None = None
    ) -> list[ParkedKey]:
        """Return every parked key and stopped partition, of one function or of all; at most `most`."""
        found: list[ParkedKey] = []
        names = [function] if function is not None else sorted(self._supervisor.functions)
        # A node may have thousands of partitions, and a console refreshes this every few seconds.
        slices = Slices(self._clock)
        for name in names:
            if function is None and name not in self._supervisor.functions:
                continue  # withdrawn meanwhile
            for stream, partition in self._partitions(name):
                found.extend(await self._parked(name, stream, partition, slices, most))
                found.extend(await self._stopped(name, stream, partition))
                await slices.step()
                if most is not None and len(found) >= most:
                    return found[:most]
        return found

    async def redrive(self, function: str, key: str | None = None) -> int:
        """Run waiting events again, in order: those of one key, or (None) all of the function.

        Returns:
            How many keys and partitions were released.

        Raises:
            Unknown: Nothing waits under this key.
        """
        chosen = await self._chosen(function, key)
        for parked in _once(chosen):

            async def work(commit: Commit, parked: ParkedKey = parked) -> None:
                if parked.status == "partition":
                    at = position_key(function, parked.stream, parked.partition)
                    trouble = decode_trouble(await self._storage.get(Space.TROUBLE, at))
                    # The rows stay, with no attempts spent: deleting them would forget the cause.
                    calm = tuple(msgspec.structs.replace(one, attempts=0, due=0) for one in trouble)
                    put = Put(Space.TROUBLE, at, encode_trouble(calm))
                else:
                    put = Put(Space.PARKED_KEYS, self._key(parked), DRAINING)
                await commit(Change(puts=(put,)))

            await self._supervisor.with_owner(function, parked.stream, parked.partition, work)
        return len(chosen)

    async def discard(self, function: str, key: str | None = None) -> int:
        """Delete waiting events permanently: those of one key, or (None) all of the function.

        Raises:
            Unknown: Nothing waits under this key.
        """
        chosen = await self._chosen(function, key)
        for parked in _once(chosen):

            async def work(commit: Commit, parked: ParkedKey = parked) -> None:
                if parked.status == "partition":
                    await self._skip(commit, parked)
                else:
                    await self._forget(commit, parked)

            await self._supervisor.with_owner(function, parked.stream, parked.partition, work)
        return len(chosen)

    async def _chosen(self, function: str, key: str | None) -> list[ParkedKey]:
        # Raises for an unknown function, of which `keys` would only return an empty list.
        self._supervisor.known(function)
        chosen = [one for one in await self.keys(function) if key is None or one.key == key]
        if key is not None and not chosen:
            raise Unknown(
                f"`{function}` has no parked key `{key}`; `headrace parked list` shows what waits"
            )
        return chosen

    def _partitions(self, function: str) -> list[tuple[str, int]]:
        return self._supervisor.partitions(function)

    def _key(self, parked: ParkedKey) -> bytes:
        lane = bytes.fromhex(parked.lane)
        return parked_key_key(parked.function, parked.stream, parked.partition, lane)

    async def _parked(
        self, function: str, stream: str, partition: int, slices: Slices, most: int | None
    ) -> list[ParkedKey]:
        prefix = pack(function, stream, partition)
        found: list[ParkedKey] = []
        # A listing for a console stops early: counting the events of each key is the expensive
        # part.
        limit = MAX_KEYS if most is None else min(most, MAX_KEYS)
        for packed, status in await self._storage.scan(
            Space.PARKED_KEYS, prefix, after(prefix), limit=limit
        ):
            await slices.step()
            first, count = await self._first(packed, slices)
            lane = packed[len(prefix) :]
            found.append(
                ParkedKey(
                    function,
                    stream,
                    partition,
                    lane_name(lane),
                    status.decode(),
                    count,
                    first.failed if first else 0,
                    f"{first.cause.kind}: {first.cause.message}" if first else "",
                    lane.hex(),
                )
            )
        return found

    async def _first(self, packed: bytes, slices: Slices) -> tuple[DeadEvent | None, int]:
        """Return the event for which a key is parked, and how many wait; counted up to 10,000."""
        count = 0
        found = first = None
        pages = scan_pages(
            self._storage, Space.PARKED, packed, parked_end(packed), limit=COUNT_PAGE
        )
        async for rows in pages:
            for _, value in rows if found is None else ():
                # After a reset, earlier events that are delivered again lie in front of the failed
                # one.
                waiting = decode_waiting(value)
                first = first or waiting
                if waiting.cause.kind != BEHIND:
                    found = waiting
                    break
            count += len(rows)
            if count >= MAX_COUNTED:
                break
            await slices.step()
        return found or first, count

    async def _stopped(self, function: str, stream: str, partition: int) -> list[ParkedKey]:
        row = await self._storage.get(Space.TROUBLE, position_key(function, stream, partition))
        return [
            ParkedKey(
                function,
                stream,
                partition,
                None,
                "partition",
                one.high - one.low,
                0,
                f"{one.cause.kind}: {one.cause.message}" if one.cause else "",
            )
            for one in decode_trouble(row)
            if one.due >= FOREVER
        ]

    async def _forget(self, commit: Commit, parked: ParkedKey) -> None:
        """Delete a parked key with all events behind it."""
        key = self._key(parked)
        while rows := await self._storage.scan(Space.PARKED, key, parked_end(key), limit=PAGE):
            deletes = tuple(
                Delete(Space.PARKED, waiting_row_key(decode_waiting(v))) for _, v in rows
            )
            await commit(Change(deletes=deletes))
        # The key last: if this is interrupted, it is still listed and can be discarded again.
        await commit(Change(deletes=(Delete(Space.PARKED_KEYS, key),)))

    async def _skip(self, commit: Commit, parked: ParkedKey) -> None:
        """Move a stopped partition past the events that stop it."""
        at = position_key(parked.function, parked.stream, parked.partition)
        row, found = await stored(self._storage, parked.function, parked.stream, parked.partition)
        mark = Watermark(found.progress)
        for one in found.trouble:
            if one.due >= FOREVER:
                for offset in range(one.low, one.high):
                    mark.finish(offset)
        left = tuple(one for one in found.trouble if one.due < FOREVER)
        await commit(
            Change(
                checks=(Check(Space.POSITIONS, at, row, fence=True),),
                puts=(
                    Put(Space.POSITIONS, at, encode_position(found.epoch, mark.progress())),
                    Put(Space.TROUBLE, at, encode_trouble(left)),
                ),
            )
        )


def _once(chosen: list[ParkedKey]) -> list[ParkedKey]:
    """Return each key, and each stopped partition, once, even if several of its events stop it.

    The first request releases the partition. A second one might find it stopped by another event,
    which the operator has not seen.
    """
    return list({(one.stream, one.partition, one.lane): one for one in chosen}.values())
