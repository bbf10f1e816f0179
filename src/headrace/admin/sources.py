"""State of every trigger with a source: for `lag`, `map`, `doctor` and the console.

Reads the partition supervisor's state and, for tables in PostgreSQL, queries their databases;
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import msgspec

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.model.function import FunctionSpec
from headrace.model.replication_slot import Slot
from headrace.model.triggers.base import StreamTrigger, Trigger, listener
from headrace.model.triggers.bus import Rule
from headrace.model.triggers.files import Ends
from headrace.model.triggers.http import Http, Webhook
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.tables import SqlTable

FRESH_S: Final = 5.0
"""How long the answer of a database is used."""
MAX_QUERIES: Final = 16
"""How many databases are queried at a time."""


class SourceRow(msgspec.Struct, frozen=True):
    """One trigger with a source.

    Attributes:
        function: The function that it triggers.
        place: Its index among the function's triggers, from 0.
        trigger: Its kind.
        stream: The stream of its events.
        state: `running`, `failing` (it is restarted) or `halted` (until the next deployment).
        error: Why it is not running.
        failures: How often it has failed in a row.
        since: When the failures started, in microseconds since the epoch; 0 if it runs.
        slot: The replication slot of a table in PostgreSQL; otherwise None.
    """

    function: str
    place: int
    trigger: str
    stream: str
    state: str = "running"
    error: str = ""
    failures: int = 0
    since: int = 0
    slot: Slot | None = None


class Sources:
    """Reads the state of sources. Used by the HTTP server.

    Args:
        outside: Whether other systems can be queried; on virtual time they cannot.
    """

    def __init__(
        self, supervisor: PartitionSupervisor, clock: Clock, *, outside: bool = True
    ) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._outside = outside
        self._slots: dict[str, tuple[float, Slot | None]] = {}

    async def rows(self, function: str | None = None) -> list[SourceRow]:
        """Return one row per trigger with a source, of one function or of all.

        Raises:
            Unknown: There is no such function.
        """
        known = self._supervisor.functions
        specs = [self._supervisor.known(function)] if function is not None else known.values()
        found = [
            (spec, place, trigger, stream)
            async for spec in Slices(self._clock).over(sorted(specs, key=lambda spec: spec.name))
            for place, trigger, stream in sources_of(spec)
        ]
        # A database that is down holds its connection attempt until the timeout.
        gate = asyncio.Semaphore(MAX_QUERIES)

        async def query(trigger: SqlTable, stream: str) -> None:
            async with gate:
                await self._query(trigger, stream)

        due = [
            (trigger, stream)
            for _, _, trigger, stream in found
            if isinstance(trigger, SqlTable) and self._is_due(trigger, stream)
        ]
        await asyncio.gather(*(query(*each) for each in due))
        return [self._row(*each) async for each in Slices(self._clock).over(found)]

    async def cached_rows(self, function: str | None = None) -> list[SourceRow]:
        """Return the rows of one function or of all without a query to a database; slots as last seen.

        Raises:
            Unknown: There is no such function.
        """
        if function is not None:
            specs = [self._supervisor.known(function)]
        else:
            specs = [spec for _, spec in sorted(self._supervisor.functions.items())]
        return [
            self._row(spec, *each)
            async for spec in Slices(self._clock).over(specs)
            for each in sources_of(spec)
        ]

    def _row(self, spec: FunctionSpec, place: int, trigger: Trigger, stream: str) -> SourceRow:
        function, (_, slot) = spec.name, self._slots.get(stream, (0.0, None))
        kind = str(trigger.__struct_config__.tag)
        trouble = self._supervisor.sources.trouble(stream)
        if trouble is None:
            return SourceRow(function, place, kind, stream, slot=slot)
        return SourceRow(
            function,
            place,
            kind,
            stream,
            "halted" if trouble.halted else "failing",
            trouble.error,
            trouble.failures,
            trouble.since,
            slot,
        )

    def _is_due(self, trigger: SqlTable, stream: str) -> bool:
        """Return whether its database must be queried again."""
        asked, _ = self._slots.get(stream, (float("-inf"), None))
        stale = self._clock.monotonic() - asked >= FRESH_S
        return self._outside and trigger.scheme == "postgresql" and stale

    async def _query(self, trigger: SqlTable, stream: str) -> None:
        try:
            # Imported here: the PostgreSQL driver is an optional dependency.
            from headrace.sources.tables.slot_lag import slot_state
        except ImportError:
            # The source reports the missing library itself.
            return
        slot = await slot_state(trigger, stream, self._clock)
        # A failed query is kept too, so that a database that is down is not queried at every
        # refresh.
        self._slots[stream] = self._clock.monotonic(), slot


def sources_of(spec: FunctionSpec) -> Iterator[tuple[int, Trigger, str]]:
    """Yield the function's triggers with a source: index, trigger, and its stream."""
    for place, trigger in enumerate(spec.triggers):
        # These have no source task, so there is no state to show.
        if isinstance(trigger, (StreamTrigger, Lag, Http, Webhook, Rule, Ends)):
            continue
        reads = listener(spec.name, place, trigger)
        if reads is not None:
            yield place, trigger, reads.streams[0]
