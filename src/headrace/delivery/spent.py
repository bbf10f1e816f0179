"""Clearing what a trigger's own stream no longer needs: events its one reader has finished.

A schedule, a route, a folder or a foreign broker feeds a stream that nobody but its function reads, and
that nobody could give a retention. What is finished is kept for a while, for those who ask what
became of it, and for repetitions to be known; then it is removed. Nothing unfinished ever is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.delivery.positions import decode_position, position_key
from headrace.keepers.brokers.base import Broker
from headrace.keepers.storage.base import Storage
from headrace.model.effects import Space
from headrace.model.errors import Unknown
from headrace.model.function import FunctionSpec
from headrace.model.lag import Lag
from headrace.model.trigger import listeners
from headrace.world.clock import Clock

KEPT_S: Final = 86_400.0
"""How long a finished event of a trigger's own stream is kept, at least."""
MICROS: Final = 1_000_000


async def clear_spent(
    functions: Iterable[FunctionSpec], *, storage: Storage, broker: Broker, clock: Clock
) -> None:
    """Remove finished events of triggers' own streams that are older than a day, or their window.

    Raises:
        Corrupt, DiskFull, Overloaded, Unavailable: As the keepers.
    """
    for function in list(functions):
        for trigger, reads in listeners(function.name, function.triggers):
            if reads is trigger or isinstance(trigger, Lag):
                continue
            stream = reads.streams[0]
            try:
                spec = broker.stream(stream)
            except Unknown:
                continue  # withdrawn meanwhile
            before = clock.now() - int(max(KEPT_S, spec.dedupe_window) * MICROS)
            for partition in range(spec.partitions):
                row = await storage.get(
                    Space.POSITIONS, position_key(function.name, stream, partition)
                )
                if row is not None:
                    below = decode_position(row).progress.watermark
                    await broker.trim(stream, partition, below=below, before=before)
            # A node may have thousands of them: others come in between.
            await clock.sleep(0)
