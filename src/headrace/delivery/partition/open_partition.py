"""A claimed partition while its worker delivers it: ledger, intake, flow control, commits and requests.

In: what the store holds of the partition. Out: one value that the loop and its steps share, opened again
whenever a commit did not land. It decides nothing and runs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter, Key
from headrace.delivery.intake.base import Intake
from headrace.delivery.intake.open import open_in_order, open_lanes
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.commit_pipeline import CommitPipeline
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.idle_windows import idle_windows_of
from headrace.delivery.partition.ledger import At, Ledger
from headrace.delivery.partition.operator_requests import OperatorRequests
from headrace.delivery.partition.scheduler import UnitScheduler, Wait
from headrace.delivery.partition.wakeup import Wakeup
from headrace.delivery.positions import StoredPosition, fence_of
from headrace.delivery.unit import Unit
from headrace.model.effects import Check

PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 2.0
"""The pause after a failure of the store, the log or the runtime doubles from one to the other."""


class OpenPartition:
    """Owned by one partition worker; only its tasks use it.

    Attributes:
        ledger: What is finished, waits or is parked; replaced by each rewind.
        intake: The events that were read and do not run yet; replaced by each rewind.
        paused: Whether no new unit starts.
        is_stopping: Whether no new unit starts, and the worker returns when the running ones have ended.
        must_rewind: Whether the log or the store failed, so that memory may differ from the store.
        is_fresh: Whether the next run must not trust the state that an instance caches.
    """

    def __init__(
        self,
        claimed: ClaimedPartition,
        *,
        engine: Engine,
        runtime: FunctionRuntime,
        breaker: CircuitBreaker,
        flow: FlowLimiter,
    ) -> None:
        self.claimed = claimed
        self.spec = claimed.spec
        self.engine = engine
        self.paused = self.is_stopping = False
        self.wakeup = Wakeup()
        self.requests = OperatorRequests(claimed.spec.name, claimed.partition, self.wakeup)
        self.gate = FlowGate(
            claimed.spec, claimed.streams, claimed.partition, flow, engine.clock.now
        )
        self.commits = CommitPipeline(claimed, engine=engine, gate=self.gate, wakeup=self.wakeup)
        self.idle = idle_windows_of(claimed, engine, self.wakeup)
        self.scheduler = UnitScheduler(
            claimed,
            engine=engine,
            gate=self.gate,
            breaker=breaker,
            commits=self.commits,
            idle=self.idle,
        )
        self._runtime = runtime
        self._at_rest = asyncio.Event()
        self._pause_s = PAUSE_MIN_S
        self._open(
            {(name, claimed.partition): claim.position for name, claim in claimed.claims.items()}
        )

    def fence(self) -> tuple[Check, ...]:
        """Checks that hold as long as this worker owns the partition, whatever else it commits."""
        places = [(stream, self.claimed.partition) for stream in self.claimed.streams]
        return tuple(fence_of(self.spec.name, at, self.ledger.epoch_of(at)) for at in places)

    # --- units ------------------------------------------------------------------------------

    @property
    def is_crowded(self) -> bool:
        """Return whether one more unit would probably read state that a running one changes."""
        commits = self.commits
        return commits.is_contended and commits.is_crowded(len(self.ledger.running))

    def take_up(self, unit: Unit) -> None:
        """Count the unit as running."""
        self.ledger.running.append(unit)
        self.gate.begin(unit)
        self._at_rest.clear()

    def put_down(self, unit: Unit) -> None:
        """Count the unit as not running: it has been committed, or will run again."""
        self.ledger.running.remove(unit)
        self.gate.end(unit)
        if not self.ledger.running:
            self._at_rest.set()
        if self.claimed.width > 1:
            # Another task may wait for a key that this unit held, or for less contention.
            self.wakeup.wake()

    def unblock(self, key: Key) -> None:
        """Let events of the key go: a run that held it has ended, here or in another partition."""
        self.intake.unblock(key)
        self.wakeup.wake()

    # --- open and rewind --------------------------------------------------------------------

    async def collect(self) -> None:
        """Forget commits that have landed; rewind where one has not, or the log or store failed."""
        self.commits.forget_landed()
        if self.commits.broken or self.must_rewind:
            await self.rewind()

    async def rewind(self) -> None:
        """Open the partition again from what the store holds.

        Raises:
            Fenced: Another owner has claimed the partition.
        """
        # A unit that still runs would commit against the ledger that is replaced here.
        await self.rest()
        if self.commits.broken or self.must_rewind:
            await self.pause()
        found = await self.commits.found()
        await self.gate.load(self.engine.storage)
        self._open(found)
        if self.claimed.merges is not None:
            partition = self.claimed.partition
            marks = {
                name: self.ledger.watermark((name, partition)) for name in self.claimed.streams
            }
            await self.claimed.merges.resume(marks)

    async def carry_out_requests(self) -> None:
        """Do what operators requested while nothing runs, then read the store again: rows have changed."""
        await self.rest()
        while self.requests and not self.commits.broken:
            await self.requests.carry_out_next()
        await self.rewind()

    def _open(self, found: Mapping[At, StoredPosition]) -> None:
        claimed = self.claimed
        self.must_rewind = False
        self.ledger = Ledger(self.spec, found, claimed.wants)
        self.intake = self._empty_intake()
        self.commits.open(self.ledger, self.intake)
        self.scheduler.open(self.ledger, self.intake)
        if self.idle is not None:
            self.idle.look_again()
        # An instance may cache state of a run whose commit did not land.
        self.is_fresh = True
        for stream, reader in zip(claimed.streams, claimed.readers, strict=True):
            reader.seek(self.ledger.watermark((stream, claimed.partition)))

    def _empty_intake(self) -> Intake:
        claimed, gate = self.claimed, self.gate
        if claimed.in_lanes:
            return open_lanes(self.spec, width=claimed.width, rules=gate.rules, waits=gate.waits)
        return open_in_order(
            self.spec,
            streams=len(claimed.streams),
            lateness=claimed.lateness,
            merges=claimed.merges,
        )

    async def close(self) -> None:
        """Carry out the requests that wait, refuse later ones, and release the readers."""
        if self.idle is not None:
            self.idle.close()
        self.is_stopping = True
        await self.requests.close()
        for reader in self.claimed.readers:
            reader.close()

    # --- waiting ----------------------------------------------------------------------------

    def recall(self) -> None:
        """Take back unfinished runs from consumers outside: they may keep a message for hours."""
        self._runtime.recall()

    async def rest(self) -> None:
        """Wait until nothing runs and no commit is in flight."""
        if self.ledger.running:
            self.recall()
            await self._at_rest.wait()
        await self.commits.drain()

    async def pause(self) -> None:
        """Wait after a failure, longer each time until `recovered`."""
        # Jitter, so that the partitions of a node do not all try again at the same moment.
        await self.engine.clock.sleep(self.engine.random.uniform(self._pause_s / 2, self._pause_s))
        self._pause_s = min(self._pause_s * 2, PAUSE_MAX_S)

    def recovered(self) -> None:
        """Start the next `pause` at its shortest: a run has come back."""
        self._pause_s = PAUSE_MIN_S

    async def wait(self, wait: Wait) -> None:
        """Sleep until there may be something to do."""
        commits = self.commits
        # A commit that lands changes nothing for a worker that sleeps, except for progress that waits to be
        # committed; one that does not land wakes it.
        watches = (not self.ledger.gathered_units and self.ledger.is_ahead) or self.is_crowded
        # Checked after the last `await`: a wake-up that came before `wakeup.wait` has no waiter and is lost.
        if self.requests or self.is_stopping or commits.broken:
            return
        if watches and commits.has_ended:
            return
        readers = [self.claimed.readers[place] for place in wait.readers]
        await self.wakeup.wait(wait.seconds, readers, commits.commits if watches else ())
