"""Explanation of an event's state: one row per function that reads its stream."""

from __future__ import annotations

import msgspec

from headrace.admin.delivery_states import NOT_STARTING, DeliveryStates
from headrace.delivery.intake.row_changes import keyed
from headrace.delivery.parked import lane_name, lane_of, parked_row_key
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import (
    decode_position,
    decode_trouble,
    decode_waiting,
    position_key,
)
from headrace.delivery.unit import FOREVER
from headrace.model.effects import Space
from headrace.model.errors import Unknown
from headrace.model.event import Event
from headrace.model.record import Chunk, Position, positions
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import pack
from headrace.storage.log.base import Broker


class Whereabouts(msgspec.Struct, frozen=True):
    """State of the event in one function.

    Attributes:
        status: `committed`, `in flight`, `retrying`, `waiting`, `parked`, `dead` or `stopped`.
        blocked_by: What it waits for, in words; "" if nothing delays it.
        attempts: Attempts spent on it.
        next_attempt: The time of its next attempt, µs since the epoch; 0 if it is not set.
        policy: The retry and failure policy, in words.
    """

    function: str
    status: str
    blocked_by: str
    attempts: int
    next_attempt: int
    cause: str
    policy: str


class Explanation(msgspec.Struct, frozen=True):
    """The event, and its state in each function."""

    stream: str
    partition: int
    offset: int
    key: str | None
    id: str
    appended: int
    hops: int
    origin: str
    functions: list[Whereabouts]


class Explainer:
    """Reads the store and the partition workers; changes nothing."""

    def __init__(self, storage: Storage, broker: Broker, states: DeliveryStates) -> None:
        self._storage = storage
        self._broker = broker
        self._states = states
        self._supervisor = states.supervisor

    async def explain(self, stream: str, partition: int, offset: int) -> Explanation:
        """Return the state of the event at this position.

        Raises:
            Unknown: The log holds no such event (any more, or yet).
        """
        # The log returns at least one event, however small `size` is.
        chunks = await self._broker.fetch(stream, partition, offset, events=1, size=1)
        if not chunks or chunks[0].start != offset:
            extent = await self._broker.extent(stream, partition)
            held = (
                f"it has {extent.low} to {extent.high - 1}"
                if extent.high > extent.low
                else f"it is empty, and the next event will be {extent.high}"
            )
            raise Unknown(f"`{stream}/{partition}` holds no offset {offset}; {held}")
        chunk = chunks[0]
        event = chunk.events()[0]
        rows = [await self._where(name, chunk, event) for name in self._supervisor.readers(stream)]
        return Explanation(
            stream,
            partition,
            offset,
            event.key,
            event.id_or(f"{stream}/{partition}/{offset}"),
            chunk.appended,
            chunk.hops,
            chunk.origin,
            rows,
        )

    async def _where(self, function: str, chunk: Chunk, event: Event) -> Whereabouts:
        stream, partition, offset = chunk.stream, chunk.partition, chunk.start
        spec = self._supervisor.known(function)
        failing = type(spec.on_failure).__name__
        tries = "one attempt" if spec.retry.attempts == 1 else f"{spec.retry.attempts} attempts"
        policy = f"{tries}, then {failing}; `order={spec.order}`, batches of {spec.batch_size}"
        if spec.ends is not None and spec.ends[0].idle is not None:
            policy += f"; open windows close after {spec.ends[0].idle:g} s without an event"
        at = position_key(function, stream, partition)
        row = await self._storage.get(Space.POSITIONS, at)
        trouble = decode_trouble(await self._storage.get(Space.TROUBLE, at))
        changes = spec.change_streams.get(stream)
        if changes is not None and changes.keys:
            # Delivery gives row changes the key of their row, and parks them under it.
            event = keyed(chunk, changes.keys).events()[0]
        lane = lane_of(event, offset)
        # Dead and parked events count as finished in the position, so their rows are looked at
        # first.
        if row_dead := await self._storage.get(
            Space.DEAD, pack(function, stream, partition, offset)
        ):
            attempts, cause = _given_up(row_dead)
            blocked = "`headrace dead redrive`"
            return Whereabouts(function, "dead", blocked, attempts, 0, cause, policy)
        if row_parked := await self._storage.get(
            Space.PARKED, parked_row_key(function, stream, partition, lane, offset)
        ):
            attempts, cause = _given_up(row_parked)
            key = lane_name(lane)
            blocked = "`headrace parked redrive`" if key is None else f"its key `{key}` is parked"
            return Whereabouts(function, "parked", blocked, attempts, 0, cause, policy)
        if row is not None and Watermark(decode_position(row).progress).is_finished(offset):
            return Whereabouts(function, "committed", "", 0, 0, "", policy)
        state = self._states.of(function, stream, partition)
        if state.startswith(NOT_STARTING) and (failed := self._states.stuck(function)) is not None:
            spent = sum(one.attempts for one in trouble if one.low <= offset < one.high)
            blocked = "an instance, and none starts"
            return Whereabouts(
                function, "waiting", blocked, spent, failed.next_start, failed.cause, policy
            )
        for one in trouble:
            cause = f"{one.cause.kind}: {one.cause.message}" if one.cause else ""
            due = 0 if one.due >= FOREVER else one.due
            if one.low <= offset < one.high:
                status = "stopped" if one.due >= FOREVER else "retrying"
                return Whereabouts(
                    function, status, "its own failure", one.attempts, due, cause, policy
                )
            if one.high <= offset:
                blocked = f"`{stream}/{partition}/{one.low}` has failed {one.attempts} times"
                return Whereabouts(function, "waiting", blocked, 0, due, cause, policy)
        worker = self._supervisor.worker(function, stream, partition)
        here = Position(stream, partition, offset)
        # Last, as memory changes while the store is read: a committed event must not be shown as
        # in flight.
        if worker is not None and any(here in positions(unit.chunks) for unit in worker.in_flight):
            return Whereabouts(function, "in flight", "", 0, 0, "", policy)
        blocked = "" if state == "running" else state
        return Whereabouts(function, "waiting", blocked, 0, 0, "", policy)


def _given_up(row: bytes) -> tuple[int, str]:
    """Return the attempts and the cause of a dead or parked row."""
    waits = decode_waiting(row)
    return waits.attempts, f"{waits.cause.kind}: {waits.cause.message}"
