"""Lag of each function: its positions against the ends of the log."""

from __future__ import annotations

import msgspec

from headrace.admin.delivery_states import DeliveryStates
from headrace.delivery.positions import decode_position, position_key
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.model.effects import Progress, Space
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker


class LagRow(msgspec.Struct, frozen=True):
    """One function in one partition.

    Attributes:
        low: The oldest offset the log keeps.
        high: The next offset to be appended.
        position: Every offset below it is finished.
        lag: Events not finished yet.
        in_flight: Events being run now.
        oldest_age: Seconds since the oldest unfinished event was appended; 0 without lag.
        epoch: The owner's epoch.
        state: `running`, `starting`, `paused`, `retrying`, `circuit breaker open`,
            `halted: why`, `not starting: why`, `stopped`.
    """

    function: str
    stream: str
    partition: int
    low: int
    high: int
    position: int
    lag: int
    in_flight: int
    oldest_age: float
    epoch: int
    state: str


class LagReport:
    """Reads positions and ends; changes nothing."""

    def __init__(
        self, storage: Storage, broker: Broker, states: DeliveryStates, clock: Clock
    ) -> None:
        self._storage = storage
        self._broker = broker
        self._states = states
        self._supervisor = states.supervisor
        self._clock = clock

    async def rows(self, function: str | None = None) -> list[LagRow]:
        """Return one row per function, stream and partition.

        Raises:
            Unknown: There is no such function.
        """
        names = [function] if function is not None else sorted(self._supervisor.functions)
        rows: list[LagRow] = []
        # A node may have thousands of partitions, and a console refreshes this every few seconds.
        slices = Slices(self._clock)
        for name in names:
            if function is None and name not in self._supervisor.functions:
                continue  # withdrawn meanwhile
            for stream, partition in self._supervisor.partitions(name):
                rows.append(await self._row(name, stream, partition))
                await slices.step()
        return rows

    async def _row(self, function: str, stream: str, partition: int) -> LagRow:
        extent = await self._broker.extent(stream, partition)
        stored = await self._storage.get(Space.POSITIONS, position_key(function, stream, partition))
        found = None if stored is None else decode_position(stored)
        # Without a row the partition was never claimed: everything in the log is lag.
        progress = found.progress if found else Progress(extent.low)
        lag = progress.unfinished(extent.low, extent.high)
        worker = self._supervisor.worker(function, stream, partition)
        running = sum(unit.size for unit in worker.in_flight) if worker is not None else 0
        # A read of the log, so only where there is lag.
        age = await self._age(stream, partition, progress.watermark) if lag else 0.0
        return LagRow(
            function,
            stream,
            partition,
            extent.low,
            extent.high,
            progress.watermark,
            lag,
            running,
            age,
            found.epoch if found else 0,
            self._states.of(function, stream, partition),
        )

    async def _age(self, stream: str, partition: int, offset: int) -> float:
        chunks = await self._broker.fetch(stream, partition, offset, events=1, size=1)
        return max(self._clock.now() - chunks[0].appended, 0) / 1_000_000 if chunks else 0.0
