"""The loop of a partition; read it first. Read, decide, submit, decide, commit, and again.

A partition worker owns one partition (of one stream, or of several co-partitioned ones) for one
function. `PartitionWorker._work` is its loop:

    read      events come from the log into the intake
    decide    the scheduler says which unit runs next, or which other step comes first
    submit    the runtime runs the unit
    decide    `settle` gives a verdict on every event of it
    commit    positions, outputs and state are stored in one transaction

Everything it uses is below it and does not call it back: the open partition (ledger, intake, flow
control, scheduler, commits, requests), the steps that are not a run, and the commit of a verdict.
Events from elsewhere reach it by a `Wakeup`. It holds nothing that the store does not: kill it
between any two lines and the next owner resumes at the last commit. Where a commit fails, it
rewinds to what the store holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.invocation import UnitCall, call_of
from headrace.delivery.partition.open_partition import OpenPartition
from headrace.delivery.partition.scheduler import (
    CloseWindows,
    Redrive,
    SaveProgress,
    Step,
    Wait,
)
from headrace.delivery.partition.settle import Verdict
from headrace.delivery.partition.steps import admit, close_windows, redrive
from headrace.delivery.partition.verdict_commit import commit_verdict
from headrace.delivery.unit import Unit
from headrace.environment.failpoints import hit
from headrace.model.errors import Fenced, HeadraceError, Unavailable
from headrace.model.outcome import Outcome
from headrace.runtime.base import RECALLED, Run
from headrace.storage.kv.base import Commit
from headrace.telemetry.history import runs_of

MIN_READ_EVENTS = 256
"""Events that one read asks for at least."""


class PartitionWorker:
    """Delivers one partition to one function. Its tasks are the only ones that touch its fields.

    Attributes:
        spec: The function.
        partition: The number of the partition.
        fenced: Whether another owner has claimed the partition.
    """

    def __init__(
        self,
        claimed: ClaimedPartition,
        *,
        engine: Engine,
        runtime: FunctionRuntime,
        breaker: CircuitBreaker,
        flow: FlowLimiter | None = None,
    ) -> None:
        self.spec = claimed.spec
        self.partition = claimed.partition
        self.fenced = False
        self._claimed = claimed
        self._engine = engine
        self._clock = engine.clock
        self._runtime = runtime
        self._breaker = breaker
        self._width = claimed.width
        self._in_lanes = claimed.in_lanes
        # One instance caches the state of a partition; where several runs share it, none can.
        self._affinity = f"{claimed.streams[0]}/{claimed.partition}" if self._width == 1 else ""
        flow = flow or FlowLimiter(claimed.spec)
        self._opened = OpenPartition(
            claimed, engine=engine, runtime=runtime, breaker=breaker, flow=flow
        )
        self._commits = self._opened.commits
        self._gate = self._opened.gate
        self._requests = self._opened.requests
        self._scheduler = self._opened.scheduler
        # At least a whole group of coalesced batches.
        most = max(self._scheduler.coalesced.most, 2)
        self._read_events = max(self.spec.batch_size * most, MIN_READ_EVENTS)
        self._read_size = self.spec.batch_bytes * 2
        # One task at a time reads and decides: two that read at once would add chunks out of order.
        self._scheduling = asyncio.Lock()
        self._sent_ahead = 0

    # --- run --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until stopped or fenced; several units at once where order is per key, or none."""
        unwatch = self._gate.watch(self._opened.unblock)
        try:
            # An operator may have moved the position since the claim; no worker was there to be asked.
            await self._opened.rewind()
            if self._width == 1:
                await self._work()
            else:
                await self._work_together()
            await self._commits.drain()
        except Fenced:
            self.fenced = True
        finally:
            unwatch()
            await self._opened.close()

    async def _work(self) -> None:
        """Read, decide, submit, decide, commit: one unit after the other."""
        call: UnitCall | None = None
        try:
            while (call := call or await self._submit_next()) is not None:
                following: UnitCall | None = None
                try:
                    following = await self._submit_ahead(call)
                    outcome = await self._outcome_of(call)
                    if outcome is None:
                        # It never ran: it goes first again, without an attempt spent.
                        self._opened.ledger.pending.appendleft(call.unit)
                        continue
                    hit("pump:after-invoke")
                    verdict = self._claimed.settle(
                        call.unit,
                        outcome,
                        self.spec,
                        now=self._clock.now(),
                        draw=self._engine.random.uniform,
                    )
                    self._report_to_breaker(verdict)
                    token, on_failure = call.invocation.token, self.spec.on_failure
                    await commit_verdict(
                        self._opened, call.unit, outcome, verdict, on_failure, token
                    )
                    hit("pump:after-commit")
                finally:
                    # Only now: until its commit is handed over, the unit holds its keys and its place.
                    self._opened.put_down(call.unit)
                    self._sent_ahead -= following is not None
                    call = following
        finally:
            if call is not None:
                call.cancel()
                self._opened.put_down(call.unit)

    async def _work_together(self) -> None:
        """Run as many tasks as units may run at once; one that fails ends them all."""
        name = f"{self.spec.name}/{self.partition}"
        tasks = [
            self._engine.tasks.start(self._work_or_stop(), name=f"{name} {number}")
            for number in range(self._width)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            # `gather` leaves the others running when one fails; they use the ledger that is closed next.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _work_or_stop(self) -> None:
        """Work; where another owner has claimed the partition, let the other tasks end with their units."""
        try:
            await self._work()
        except Fenced:
            self.fenced = True
            self.stop()

    # --- what others request and read -------------------------------------------------------

    def stop(self) -> None:
        """Let the running unit end and commit, then return from `run`."""
        self._opened.is_stopping = True
        self._opened.recall()
        self._opened.wakeup.wake()

    def wake(self) -> None:
        """Look again at what delays the next unit."""
        self._opened.wakeup.wake()

    def pause(self, paused: bool) -> None:
        """Start no new unit (or go on again)."""
        self._opened.paused = paused
        self._opened.wakeup.wake()

    async def request(self, work: Callable[[Commit], Awaitable[None]]) -> None:
        """Do `work` between two units, while nothing is in flight, then read the store again.

        Operators' changes (redrive, reset) are made by the partition's one writer this way. A
        commit of `work` lands only while the partition is owned here.

        Raises:
            Fenced: Another owner has claimed the partition.
            Unavailable: The worker has released the partition.
        """
        commit = self._engine.committer.fenced(self._opened.fence())
        await self._requests.request(lambda: work(commit))

    @property
    def paused(self) -> bool:
        """Return whether no new unit starts."""
        return self._opened.paused

    @property
    def is_over(self) -> bool:
        """Return whether it has released its partition."""
        return self._requests.is_closed

    @property
    def in_flight(self) -> list[Unit]:
        """The units that run now."""
        return self._opened.ledger.running

    @property
    def is_retrying(self) -> bool:
        """Return whether the partition waits for a unit that has failed before."""
        pending = self._opened.ledger.pending
        return bool(pending) and pending[0].attempts > 0

    # --- read, decide -----------------------------------------------------------------------

    async def _next_unit(self) -> Unit | None:
        """Take up the next unit; None when it is time to stop."""
        if (unit := self._ready_unit()) is None:
            async with self._scheduling:
                unit = await self._scheduled_unit()
                if unit is not None:
                    # Within the lock: the next task must find it running, or it could pass its keys.
                    self._opened.take_up(unit)
                return unit
        self._opened.take_up(unit)
        return unit

    def _ready_unit(self) -> Unit | None:
        """Return a whole batch that has been read, where nothing else has to be done first.

        The common case: it decides without a lock, an `await` or a step.
        """
        if not (self._is_free and self._scheduler.is_ready):
            return None
        self._commits.forget_landed()
        return None if self._commits.broken else self._scheduler.take_ready()

    @property
    def _is_free(self) -> bool:
        """Return whether a unit may be taken up without waiting for another task or a request."""
        opened = self._opened
        return not (
            self._scheduling.locked()
            or self._requests
            or opened.is_stopping
            or opened.must_rewind
            or opened.paused
            or opened.is_crowded
        )

    async def _scheduled_unit(self) -> Unit | None:
        """Wait for the next unit to run; None when it is time to stop."""
        opened, breaker, clock = self._opened, self._breaker, self._clock
        while not opened.is_stopping:
            try:
                # A commit that failed comes first: all below would decide on a ledger that is wrong.
                if self._commits.wants_attention or opened.must_rewind:
                    await opened.collect()
                elif self._requests:
                    await opened.carry_out_requests()
                elif opened.paused:
                    await opened.wait(Wait(None))
                elif (pause := breaker.remaining(clock.monotonic())) > 0:
                    await opened.wait(Wait(pause))
                elif opened.is_crowded:
                    await opened.wait(Wait(None))
                elif (pause_s := self._gate.wait()) != 0.0:
                    await opened.wait(Wait(pause_s))
                elif (step := await self._next_step()) is not None:
                    picked = await self._carry_out(step)
                    unit = None if picked is None else await admit(opened, picked)
                    if unit is None:
                        continue
                    # Again: while this one was picked, another partition may have started the last run that
                    # the limit allowed, or the breaker's trial.
                    if self._gate.wait() == 0.0 and breaker.wait(clock.monotonic()) <= 0:
                        return unit
                    opened.ledger.pending.appendleft(unit)
            except Unavailable:
                # The log or the store is away: wait, then begin again at what the store holds. Running
                # units still commit, or their attempts would be forgotten.
                opened.must_rewind = True
        return None

    async def _next_step(self) -> Step | None:
        """Decide what comes next; read from the log where nothing else comes first."""
        step = self._scheduler.before_reading()
        if step is not None:
            return step
        merges = self._claimed.merges
        if merges is not None and merges.is_due:
            await merges.trim()
        readers = self._opened.intake.wanting()
        has_read = await self._read(readers)
        return self._scheduler.after_reading(readers, has_read=has_read)

    async def _read(self, readers: Sequence[int]) -> bool:
        """Add what these readers have to the intake; return whether there was anything."""
        has_read = False
        for place in readers:
            reader = self._claimed.readers[place]
            chunks = await reader.read(events=self._read_events, size=self._read_size)
            if chunks:
                hit("pump:after-read")
                has_read = True
                self._scheduler.admit(place, chunks)
        return has_read

    async def _carry_out(self, step: Step) -> Unit | None:
        """Do what the scheduler decided; return the unit to run, where the step is one."""
        match step:
            case Unit():
                return step
            case Wait():
                await self._opened.wait(step)
            case SaveProgress():
                await self._commits.commit(self._opened.ledger.progressed)
            case CloseWindows():
                await close_windows(self._opened)
            case Redrive(lane=lane):
                return await redrive(self._opened, lane)
        return None

    # --- submit -----------------------------------------------------------------------------

    async def _submit_next(self) -> UnitCall | None:
        """Submit the next unit; None when it is time to stop."""
        while (unit := await self._next_unit()) is not None:
            try:
                await self._write_ahead(unit)
                if not self._commits.broken:
                    hit("pump:before-invoke")
                    return self._call(unit)
            except BaseException:
                # Cancellation too: a unit that stays in `running` makes every later `rest` wait forever.
                self._opened.put_down(unit)
                raise
            self._opened.put_down(unit)
        return None

    async def _write_ahead(self, unit: Unit) -> None:
        """Commit what must be durable before the unit runs."""
        ahead, ledger = self._gate.ahead(unit), self._opened.ledger
        if self.spec.commit == "before":
            await self._commits.commit(
                lambda: msgspec.structs.replace(ledger.forgotten(unit), extra=ahead)
            )
        elif ahead:
            # A throttle that a crash forgets would start too many runs after a restart.
            await self._commits.commit(
                lambda: msgspec.structs.replace(ledger.progressed(), extra=ahead)
            )

    def _call(self, unit: Unit, after: Run | None = None) -> UnitCall:
        """Submit the unit; it starts `after` another run if it is sent ahead."""
        invocation = call_of(
            unit,
            self.spec,
            self._engine.random,
            now=self._clock.now(),
            affinity=self._affinity,
            # Runs of a partition in lanes take turns on many instances: what one of them remembers,
            # another has changed.
            fresh=self._opened.is_fresh or self._in_lanes,
        )
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run, started = None, self._clock.monotonic()
        try:
            run = self._runtime.submit(invocation, done, after)
        except HeadraceError as error:
            # Raised where its outcome is awaited, so that both kinds of failure take one way.
            done.set_exception(error)
        return UnitCall(unit, invocation, done, run, started)

    async def _submit_ahead(self, call: UnitCall) -> UnitCall | None:
        """Prefetch the next ready unit: the instance starts it as soon as this call ends.

        Each task has one run that has started, so never more of them than `parallelism`. While one has
        none, nothing is sent ahead: it would wait behind another run, and could begin.
        """
        if self._width == 1 or (leader := self._leader(call)) is None:
            return None
        if (unit := self._ready_unit()) is None:
            if not (self._is_free and self._scheduler.runs_dry):
                return None
            await self._read_on()
            # The call may have ended during the read: nothing is left to be sent behind.
            if (leader := self._leader(call)) is None or (unit := self._ready_unit()) is None:
                return None
        self._sent_ahead += 1
        self._opened.take_up(unit)
        return self._call(unit, leader)

    def _leader(self, call: UnitCall) -> Run | None:
        """Return the run behind which another one may be sent ahead, if one may."""
        if len(self._opened.ledger.running) - self._sent_ahead < self._width:
            return None
        return call.run if call.run is not None and call.run.takes_another else None

    async def _read_on(self) -> None:
        """Read more while every task waits for its run."""
        async with self._scheduling:
            try:
                await self._read(self._opened.intake.wanting())
            except Unavailable:
                # As in `_scheduled_unit`.
                self._opened.must_rewind = True

    async def _outcome_of(self, call: UnitCall) -> Outcome | None:
        """Wait for the end of a call; None where the unit did not run."""
        try:
            outcome = await call.done
        except Unavailable:
            await self._opened.pause()
            return None
        except asyncio.CancelledError:
            call.cancel()
            raise
        if outcome is RECALLED:
            # It never ran: nothing to judge, nothing to count.
            return None
        self._opened.is_fresh = False
        self._opened.recovered()
        wall = self._clock.monotonic() - call.started
        for run, batches in runs_of(call.invocation, outcome, wall):
            self._engine.telemetry.record(run, batches)
        self._scheduler.coalesced.ended(call.unit.size, outcome)
        return outcome

    # --- decide -----------------------------------------------------------------------------

    def _report_to_breaker(self, verdict: Verdict) -> None:
        if verdict.healthy:
            self._breaker.succeeded()
        elif verdict.healthy is False:
            if verdict.finished:
                # Batches of a group of coalesced batches that ran before the one that failed.
                self._breaker.succeeded()
            self._breaker.failed(self._clock.monotonic())
