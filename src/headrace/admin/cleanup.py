"""Cleanup of finished events in triggers' private streams and in queues.

A schedule, a route, a folder or a foreign broker appends to a stream that only its function reads,
and that has no retention setting; a queue's message is finished once every reader has finished it.
Finished events are kept for a while, for questions about them and for the detection of duplicates,
and are then removed. Unfinished ones are never removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.delivery.positions import decode_position, position_key
from headrace.environment.clock import Clock
from headrace.model.effects import Space
from headrace.model.errors import Unknown
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.triggers.base import listeners
from headrace.model.triggers.lag import Lag
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker

KEPT_S: Final = 86_400.0
"""The minimum time that a finished event is kept, in seconds."""
MICROS: Final = 1_000_000


async def clear_spent(
    functions: Iterable[FunctionSpec], *, storage: Storage, broker: Broker, clock: Clock
) -> None:
    """Remove events that every reader has finished, after a day and their dedupe window.

    Raises:
        Corrupt, DiskFull, Overloaded, Unavailable: As the storage and the log.
    """
    for spec, readers in _cleared(functions, broker):
        # Not before the dedupe window ends: a repetition would not be recognised any more.
        before = clock.now() - int(max(KEPT_S, spec.dedupe_window) * MICROS)
        for partition in range(spec.partitions):
            below = await _finished(storage, readers, spec.name, partition)
            if below:
                await broker.trim(spec.name, partition, below=below, before=before)
        # A node may have thousands of streams: let other tasks run in between.
        await clock.sleep(0)


def _cleared(
    functions: Iterable[FunctionSpec], broker: Broker
) -> list[tuple[StreamSpec, list[str]]]:
    """Return the streams to clean, each with its readers."""
    found: dict[str, tuple[StreamSpec, list[str]]] = {}
    for function in functions:
        for trigger, reads in listeners(function.name, function.triggers):
            # A `Lag` reads a declared stream, whose retention its author sets.
            is_own = reads is not trigger and not isinstance(trigger, Lag)
            for name in reads.streams:
                try:
                    spec = broker.stream(name)
                except Unknown:
                    continue  # withdrawn meanwhile
                if is_own or _is_left_to_us(spec):
                    found.setdefault(name, (spec, []))[1].append(function.name)
    return list(found.values())


def _is_left_to_us(spec: StreamSpec) -> bool:
    """Return whether it is a queue without a retention setting of its author."""
    says = (spec.retention_age, spec.retention_bytes) != (None, None) or spec.cleanup == "compact"
    return spec.queue is not None and not says


async def _finished(storage: Storage, readers: Iterable[str], stream: str, partition: int) -> int:
    """Return the offset below which every reader has finished everything."""
    marks = []
    for reader in readers:
        row = await storage.get(Space.POSITIONS, position_key(reader, stream, partition))
        # A reader without a position has finished nothing yet, so nothing may go.
        marks.append(0 if row is None else decode_position(row).progress.watermark)
    return min(marks, default=0)
