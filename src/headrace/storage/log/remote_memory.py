"""A remote log in memory, for tests and simulation: it shares no transaction with the store, and may be away.

What it keeps is handed in, and outlives it and every node, as a cluster of brokers does. It takes
appends from numbered writers only, and remembers with them how far each writer has come; so it takes
nothing twice, and nothing from a writer that was opened again since. A hook loses connections,
repeats and delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.environment.clock import Clock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Space
from headrace.model.errors import Fenced
from headrace.model.record import Append
from headrace.storage.kv.memory import Faults
from headrace.storage.log.memory import SWEEP_SECONDS, MemoryLog, MemoryStreams


@dataclass
class RemoteStreams(MemoryStreams):
    """The data that outlives the log: its streams, and each writer's epoch and last number taken."""

    epochs: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)


class RemoteMemoryLog(MemoryLog):
    """A log in memory that a store's outbox publishes to."""

    def __init__(
        self,
        kept: RemoteStreams,
        *,
        clock: Clock,
        tasks: Tasks | None = None,
        sweep: float = SWEEP_SECONDS,
        faults: Faults | None = None,
    ) -> None:
        """Connect.

        Args:
            kept: The log itself.
            clock: The source of time.
            tasks: The group the housekeeping runs in; None: the caller runs `sweep`.
            sweep: Seconds between sweeps.
            faults: Called with `before` and `after` around the moment appends are taken; what it
                raises is raised to the writer, what it returns is awaited.
        """
        super().__init__(kept, clock=clock, tasks=tasks, sweep=sweep)
        self._remote = kept
        self.faults = faults

    async def open_writer(self, id: int) -> RemoteMemoryWriter:
        """Continue as this writer, and fence off its former holder; see the port."""
        self._require_open()
        await self.fault("before")
        self._require_open()
        # Before the second fault: an opening whose answer is lost has fenced off the former writer
        # all the same.
        epoch = self._remote.epochs[id] = self._remote.epochs.get(id, 0) + 1
        await self.fault("after")
        return RemoteMemoryWriter(self, id, epoch)

    async def fault(self, moment: str) -> None:
        """Run the fault hook of this moment."""
        if self.faults is not None and (waiting := self.faults(moment)) is not None:
            await waiting

    def take(self, id: int, epoch: int, appends: Sequence[tuple[int, Append]]) -> None:
        """Take of a writer's appends what was not taken before.

        Raises:
            Fenced: It was opened again since.
        """
        self._require_open()
        if self._remote.epochs[id] != epoch:
            raise Fenced(f"writer {id} of the log was opened again: another node has taken it over")
        last = self._remote.taken.get(id, 0)
        # Numbers ascend: what is not higher was taken before an answer was lost.
        fresh = [append for number, append in appends if number > last]
        self._ledger.stage(fresh, _nothing)
        self._ledger.landed()
        # No wait between the append and this line: both are one transaction of the log.
        self._remote.taken[id] = max(last, appends[-1][0])


class RemoteMemoryWriter:
    """One writer, from one opening to the next."""

    def __init__(self, log: RemoteMemoryLog, id: int, epoch: int) -> None:
        self._log = log
        self._id = id
        self._epoch = epoch

    async def publish(self, appends: Sequence[tuple[int, Append]]) -> None:
        """Append all that is new, or nothing; see the port."""
        await self._log.fault("before")
        self._log.take(self._id, self._epoch, appends)
        await self._log.fault("after")


def _nothing(space: Space, key: bytes) -> bytes | None:
    """The log looks up no rows: ids and delayed messages are kept in the store."""
    return None
