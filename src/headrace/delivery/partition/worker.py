"""The loop of a partition; read it first. Read, decide, submit, decide, commit, and again.

A partition worker owns one partition (of one stream, or of several co-partitioned ones) for one function.
`PartitionWorker._work` is its life:

    read      events come from the log into the intake
    decide    the scheduler says which unit runs next, or what else is to be done
    submit    the runtime runs the unit
    decide    `settle` gives a verdict on every event of it
    commit    positions, outputs and state land in one transaction

Everything it uses is below it and calls nobody back: the ledger, the intake, flow control, the commit
pipeline and the scheduler. What happens elsewhere reaches it by its `Wakeup`. It holds nothing that the
store does not: kill it between any two lines and the next owner resumes at the last commit. Where a commit
fails, it rewinds to what the store holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from headrace.delivery.engine import Engine
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter, Key
from headrace.delivery.intake.base import Intake
from headrace.delivery.intake.open import open_in_order, open_lanes
from headrace.delivery.parked import parked_events, redriven
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.coalesced_batches import batches_of
from headrace.delivery.partition.commit_pipeline import CommitPipeline
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.function_runtime import FunctionRuntime
from headrace.delivery.partition.idle_windows import idle_windows_of
from headrace.delivery.partition.invocation import UnitCall, call_of
from headrace.delivery.partition.ledger import At, Lane, Ledger
from headrace.delivery.partition.operator_requests import OperatorRequests
from headrace.delivery.partition.scheduler import (
    CloseWindows,
    Redrive,
    SaveProgress,
    Step,
    UnitScheduler,
    Wait,
)
from headrace.delivery.partition.settle import RUNAWAY, Verdict, at_most_once, runaway
from headrace.delivery.partition.wakeup import Wakeup
from headrace.delivery.positions import StoredPosition, fence_of
from headrace.delivery.unit import FOREVER, Unit
from headrace.environment.failpoints import hit
from headrace.model.effects import Check
from headrace.model.errors import Fenced, HeadraceError, Unavailable
from headrace.model.hop_limit import runs_away
from headrace.model.outcome import Outcome, Returned
from headrace.model.policy import OnFailure, ParkKey
from headrace.runtime.base import RECALLED, Run
from headrace.storage.kv.base import Commit
from headrace.telemetry.history import runs_of

PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 2.0


class PartitionWorker:
    """Delivers one partition to one function. Its tasks are the only ones that touch its fields.

    Attributes:
        spec: The function.
        partition: The number of the partition.
        paused: Whether nothing new is taken up.
        fenced: Whether another owner has taken the partition over.
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
        self.paused = False
        self.fenced = False
        self._claimed = claimed
        self._engine = engine
        self._clock = engine.clock
        self._runtime = runtime
        self._breaker = breaker
        self._width = claimed.width
        self._in_lanes = claimed.in_lanes
        self._streams = claimed.streams
        self._affinity = f"{self._streams[0]}/{self.partition}" if self._width == 1 else ""
        self._wakeup = Wakeup()
        self._requests = OperatorRequests(self.spec.name, self.partition, self._wakeup)
        self._gate = FlowGate(
            self.spec,
            self._streams,
            self.partition,
            flow or FlowLimiter(self.spec),
            self._clock.now,
        )
        self._commits = CommitPipeline(claimed, engine=engine, gate=self._gate, wakeup=self._wakeup)
        self._idle = idle_windows_of(claimed, engine, self._wakeup)
        self._scheduler = UnitScheduler(
            claimed,
            engine=engine,
            gate=self._gate,
            breaker=breaker,
            commits=self._commits,
            idle=self._idle,
        )
        self._read_events = max(self.spec.batch_size * max(self._scheduler.coalesced.most, 2), 256)
        self._read_size = self.spec.batch_bytes * 2
        self._scheduling = asyncio.Lock()
        self._sent_ahead = 0
        self._at_rest = asyncio.Event()
        self._is_stopping = False
        self._must_rewind = False
        self._pause_s = PAUSE_MIN_S
        self._open_ledger(
            {(name, self.partition): claim.standing for name, claim in claimed.claims.items()}
        )

    # --- its life ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until stopped or fenced; several units at once where order is per key, or none."""
        unwatch = self._gate.watch(self._has_room)
        try:
            # Since it was claimed, an operator may have moved the position: nobody asked us then.
            await self._rewind()
            if self._width == 1:
                await self._work()
            else:
                await self._work_together()
            await self._commits.drain()
        except Fenced:
            self.fenced = True
        finally:
            unwatch()
            if self._idle is not None:
                self._idle.close()
            self._is_stopping = True
            await self._requests.close()
            for reader in self._claimed.readers:
                reader.close()

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
                        # It never ran.
                        self.ledger.pending.appendleft(call.unit)
                        continue
                    hit("pump:after-invoke")
                    verdict = self._claimed.settle(
                        call.unit,
                        outcome,
                        self.spec,
                        now=self._clock.now(),
                        draw=self._engine.random.uniform,
                    )
                    self._tell_breaker(verdict)
                    token = call.invocation.token
                    await self._commit(call.unit, outcome, verdict, self.spec.on_failure, token)
                    hit("pump:after-commit")
                finally:
                    self._put_down(call.unit)
                    self._sent_ahead -= following is not None
                    call = following
        finally:
            if call is not None:
                call.cancel()
                self._put_down(call.unit)

    async def _work_together(self) -> None:
        """As many tasks as units may run at once; one that fails ends them all."""
        name = f"{self.spec.name}/{self.partition}"
        tasks = [
            self._engine.tasks.start(self._work_beside(), name=f"{name} {number}")
            for number in range(self._width)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _work_beside(self) -> None:
        """One task's part; where the partition is lost the others end with their units."""
        try:
            await self._work()
        except Fenced:
            self.fenced = True
            self.stop()

    # --- what others ask of it --------------------------------------------------------------

    def stop(self) -> None:
        """Let the running unit end and land, then return from `run`."""
        self._is_stopping = True
        self._runtime.recall()
        self._wakeup.wake()

    def wake(self) -> None:
        """Look again at what holds it up."""
        self._wakeup.wake()

    def pause(self, paused: bool) -> None:
        """Take up nothing new (or go on again)."""
        self.paused = paused
        self._wakeup.wake()

    async def request(self, work: Callable[[Commit], Awaitable[None]]) -> None:
        """Do `work` between two units, while nothing is in flight, then look at the store again.

        This is how what an operator asks for (redrive, reset) is done by the partition's one writer.
        What it commits by what it is given lands only while the partition is owned here.

        Raises:
            Fenced: Another owner has taken the partition over.
            Unavailable: The worker has let go of the partition.
        """
        commit = self._engine.committer.fenced(self._fence())
        await self._requests.ask(lambda: work(commit))

    def _fence(self) -> tuple[Check, ...]:
        """What holds as long as the partition is owned here, whatever lands for it meanwhile."""
        places = [(stream, self.partition) for stream in self._streams]
        return tuple(fence_of(self.spec.name, at, self.ledger.epoch_of(at)) for at in places)

    @property
    def is_over(self) -> bool:
        """Whether it has let go of its partition."""
        return self._requests.is_closed

    @property
    def in_flight(self) -> list[Unit]:
        """The units being run now."""
        return self.ledger.running

    @property
    def is_retrying(self) -> bool:
        """Whether the partition waits for a unit that has failed before."""
        pending = self.ledger.pending
        return bool(pending) and pending[0].attempts > 0

    # --- read, decide -----------------------------------------------------------------------

    async def _next_unit(self) -> Unit | None:
        """The next unit, which is then running; None when it is time to stop."""
        if (unit := self._ready_unit()) is None:
            async with self._scheduling:
                unit = await self._scheduled_unit()
                if unit is not None:
                    self._take_up(unit)
                return unit
        self._take_up(unit)
        return unit

    def _ready_unit(self) -> Unit | None:
        """A whole batch that lies ready, where nothing asks for another way than straight on."""
        if not (self._is_free and self._scheduler.is_ready):
            return None
        self._commits.forget_landed()
        return None if self._commits.broken else self._scheduler.take_ready()

    @property
    def _is_free(self) -> bool:
        """Whether a unit may be taken up without waiting for somebody else."""
        return not (
            self._scheduling.locked()
            or self._requests
            or self._is_stopping
            or self._must_rewind
            or self.paused
            or self._is_crowded
        )

    @property
    def _is_crowded(self) -> bool:
        """Whether one unit more would likely meet stale state."""
        commits = self._commits
        return commits.is_wary and commits.is_crowded(len(self.ledger.running))

    async def _scheduled_unit(self) -> Unit | None:
        """Wait for the next unit to run; None when it is time to stop."""
        while not self._is_stopping:
            try:
                if self._commits.wants_attention or self._must_rewind:
                    await self._collect()
                elif self._requests:
                    await self._carry_out_requests()
                elif self.paused:
                    await self._wait(Wait(None))
                elif (pause := self._breaker.remaining(self._clock.monotonic())) > 0:
                    await self._wait(Wait(pause))
                elif self._is_crowded:
                    await self._wait(Wait(None))
                elif (room := self._gate.wait()) != 0.0:
                    await self._wait(Wait(room))
                elif (step := await self._next_step()) is not None:
                    picked = await self._carry_out(step)
                    unit = None if picked is None else await self._admitted(picked)
                    if unit is None:
                        continue
                    allowed = self._gate.wait() == 0.0
                    if allowed and self._breaker.wait(self._clock.monotonic()) <= 0:
                        return unit
                    # While this one was picked another partition has begun the last run that was
                    # allowed, or the breaker's trial.
                    self.ledger.pending.appendleft(unit)
            except Unavailable:
                # The log or the store is away: wait, then begin again at what the store holds. What
                # runs meanwhile still lands, or its attempts would be forgotten.
                self._must_rewind = True
        return None

    async def _next_step(self) -> Step | None:
        """What is to be done now, with a look at the log where nothing else goes before."""
        step = self._scheduler.before_reading()
        if step is not None:
            return step
        merges = self._claimed.merges
        if merges is not None and merges.is_due:
            await merges.trim()
        asked = self._intake.wanting()
        has_read = await self._read(asked)
        return self._scheduler.after_reading(asked, has_read=has_read)

    async def _read(self, asked: Sequence[int]) -> bool:
        """Lay what these readers have behind what waits; whether there was anything."""
        has_read = False
        for place in asked:
            reader = self._claimed.readers[place]
            chunks = await reader.read(events=self._read_events, size=self._read_size)
            if chunks:
                hit("pump:after-read")
                has_read = True
                self._scheduler.admit(place, chunks)
        return has_read

    async def _carry_out(self, step: Step) -> Unit | None:
        """Do what the scheduler has decided; the unit to run, where that is one."""
        match step:
            case Unit():
                return step
            case Wait():
                await self._wait(step)
            case SaveProgress():
                await self._commits.commit(self.ledger.progressed)
            case CloseWindows():
                await self._close_windows()
            case Redrive(lane=lane):
                return await self._redriven(lane)
        return None

    async def _close_windows(self) -> None:
        """Ask the function to close the windows that are open, as soon as all it did is kept."""
        await self._commits.drain()
        if self._idle is None or self._commits.broken:
            return
        if (request := await self._idle.request()) is not None:
            await self._commits.commit(lambda: self.ledger.progressed((request,)))

    async def _redriven(self, lane: Lane) -> Unit | None:
        """The first event waiting in a lane that is being redriven, or None once it is free."""
        ledger, laid = self.ledger, self.ledger.laid_behind(lane)
        if ledger.lays_aside:
            await self._commits.commit(ledger.progressed)
        await self._commits.drain()
        if self._commits.broken:
            return None
        waiting = await parked_events(self._engine.storage, self.spec.name, *lane, limit=1)
        if waiting:
            unit = redriven(waiting[0])
            if unit.due <= self._clock.now():
                return unit
            ledger.postpone(unit, unit.due)
            return None
        if ledger.laid_behind(lane) != laid:
            # Another task has met its key meanwhile: what it laid aside may be on its way yet.
            return None
        # From here on nothing is laid behind it: no row may be left where no key is parked.
        del ledger.parked[lane]
        await self._commits.commit(lambda: ledger.freed(lane))
        return None

    async def _admitted(self, picked: Unit) -> Unit | None:
        """What of the unit is to run now; None where all of it waits."""
        if later := self._gate.later(picked):
            self.ledger.postpone(picked, later)
            return None
        unit, aside = self.ledger.divert(picked, self._clock.now())
        self._intake.release(aside)
        for event in (event for chunk in aside for event in chunk.events()):
            # It was picked but does not run: what its key has room for may go instead.
            self._has_room(event.key)
        if unit is None:
            await self._commits.drain()
            await self._commits.commit(self.ledger.progressed)
        elif not unit.parked and any(runs_away(chunk.hops) for chunk in unit.chunks):
            if unit.size > self.spec.batch_size:
                # Only the batch it is in; those beside it are innocent.
                alone = batches_of(unit, self.spec.batch_size)
                self.ledger.pending.extendleft(reversed(alone))
                return None
            await self._commit(unit, RUNAWAY, runaway(unit), ParkKey(), 0)
        else:
            # What an operator redrives runs, however long its lineage: somebody has looked at it.
            return unit
        return None

    def _take_up(self, unit: Unit) -> None:
        """The unit is running from now on."""
        self.ledger.running.append(unit)
        self._gate.begin(unit)
        self._at_rest.clear()

    def _put_down(self, unit: Unit) -> None:
        """The unit is landed, or will be run again."""
        self.ledger.running.remove(unit)
        self._gate.end(unit)
        if not self.ledger.running:
            self._at_rest.set()
        if self._width > 1:
            self._wakeup.wake()

    def _has_room(self, key: Key) -> None:
        """A run that held the key has ended, here or in another partition."""
        self._intake.unblock(key)
        self._wakeup.wake()

    # --- submit -----------------------------------------------------------------------------

    async def _submit_next(self) -> UnitCall | None:
        """The next unit as a call that is to run; None when it is time to stop."""
        while (unit := await self._next_unit()) is not None:
            try:
                await self._write_ahead(unit)
                if not self._commits.broken:
                    hit("pump:before-invoke")
                    return self._call(unit)
            except BaseException:
                self._put_down(unit)
                raise
            self._put_down(unit)
        return None

    async def _write_ahead(self, unit: Unit) -> None:
        """Have on the disk what must be there before the unit runs."""
        ahead = self._gate.ahead(unit)
        if self.spec.commit == "before":
            await self._commits.commit(
                lambda: msgspec.structs.replace(self.ledger.forgotten(unit), extra=ahead)
            )
        elif ahead:
            await self._commits.commit(
                lambda: msgspec.structs.replace(self.ledger.progressed(), extra=ahead)
            )

    def _call(self, unit: Unit, after: Run | None = None) -> UnitCall:
        """Submit the unit; it is begun `after` another run where it is sent ahead."""
        invocation = call_of(
            unit,
            self.spec,
            self._engine.random,
            now=self._clock.now(),
            affinity=self._affinity,
            # Runs of a partition in lanes take turns on many instances: what one of them remembers,
            # another has changed.
            fresh=self._is_fresh or self._in_lanes,
        )
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run, started = None, self._clock.monotonic()
        try:
            run = self._runtime.submit(invocation, done, after)
        except HeadraceError as error:
            # Heard where its outcome is waited for.
            done.set_exception(error)
        return UnitCall(unit, invocation, done, run, started)

    async def _submit_ahead(self, call: UnitCall) -> UnitCall | None:
        """Send what lies ready behind the call, to be begun as soon as this one ends.

        Each task has one run that has begun, so never more of them than `parallelism`. While one has
        none, nothing is sent ahead: it would wait behind another run, and could begin.
        """
        if self._width == 1 or (leader := self._leader(call)) is None:
            return None
        if (unit := self._ready_unit()) is None:
            if not (self._is_free and self._scheduler.runs_dry):
                return None
            await self._read_on()
            if (leader := self._leader(call)) is None or (unit := self._ready_unit()) is None:
                return None
        self._sent_ahead += 1
        self._take_up(unit)
        return self._call(unit, leader)

    def _leader(self, call: UnitCall) -> Run | None:
        """The run behind which another one may be sent ahead, if one may."""
        if len(self.ledger.running) - self._sent_ahead < self._width:
            return None
        return call.run if call.run is not None and call.run.takes_another else None

    async def _read_on(self) -> None:
        """Lay more ready, while no task is free to."""
        async with self._scheduling:
            try:
                await self._read(self._intake.wanting())
            except Unavailable:
                # As in `_scheduled_unit`.
                self._must_rewind = True

    async def _outcome_of(self, call: UnitCall) -> Outcome | None:
        """Wait for its end: what came back; None where it did not run."""
        try:
            outcome = await call.done
        except Unavailable:
            await self._pause()
            return None
        except asyncio.CancelledError:
            call.cancel()
            raise
        if outcome is RECALLED:
            # It never ran: nothing to judge, nothing to count.
            return None
        self._is_fresh = False
        self._pause_s = PAUSE_MIN_S
        wall = self._clock.monotonic() - call.started
        for run, batches in runs_of(call.invocation, outcome, wall):
            self._engine.telemetry.record(run, batches)
        self._scheduler.coalesced.ended(call.unit.size, outcome)
        return outcome

    def _tell_breaker(self, verdict: Verdict) -> None:
        if verdict.healthy:
            self._breaker.succeeded()
        elif verdict.healthy is False:
            if verdict.finished:
                # Batches of a group of coalesced batches that ran before the one that failed.
                self._breaker.succeeded()
            self._breaker.failed(self._clock.monotonic())

    # --- commit -----------------------------------------------------------------------------

    async def _commit(
        self, unit: Unit, outcome: Outcome, verdict: Verdict, on_failure: OnFailure, token: int
    ) -> None:
        """Make the verdict durable; a plain one without waiting for the disk."""
        if self._commits.broken:
            return
        if self.spec.commit == "before":
            verdict = at_most_once(verdict)
        for unit_again in verdict.again:
            if unit_again.due == FOREVER and unit_again.cause is not None:
                self._engine.telemetry.stopped(
                    self.spec.name, unit_again.chunks[0], unit_again.cause, unit_again.attempts
                )
        kept = outcome if verdict.kept and isinstance(outcome, Returned) else None
        finished = verdict.finished
        if verdict.given_up:
            finished += tuple(lost.chunk for lost in verdict.given_up)
        if kept is not None and self.ledger.is_light(unit, verdict, kept):
            self.ledger.gather(unit, kept)
            self._commits.begin_gathered(finished if self._in_lanes else ())
            await self._commits.room()
            return
        self._commits.write_up()
        plain = self.ledger.is_plain(unit, verdict)
        effects = self.ledger.landed(
            unit, verdict, kept=kept, token=token, on_failure=on_failure, now=self._clock.now()
        )
        if effects is None:
            self._intake.release(finished)
            return
        if verdict.given_up:
            hit("dead-letter:before-commit")
        # In order within the partition, what ran behind it has built on it.
        spare = unit if self._in_lanes and plain and not effects.trouble else None
        commit = self._commits.begin(effects, finished, spare)
        if not plain:
            await asyncio.wait((commit,))
            if not self._commits.broken:
                self._engine.telemetry.gave_up(
                    self.spec.name, dead=effects.dead, parked=effects.parked
                )
        else:
            # One turn of the loop: the change is handed to the store before the next run begins,
            # which may ask for the state that this one wrote.
            await self._clock.sleep(0)
            await self._commits.room()

    # --- starting over ----------------------------------------------------------------------

    async def _collect(self) -> None:
        """Forget commits that have landed; rewind where one has not, or the log was away."""
        self._commits.forget_landed()
        if self._commits.broken or self._must_rewind:
            await self._rewind()

    async def _rewind(self) -> None:
        """Go back to what the store holds.

        Raises:
            Fenced: Another owner holds a partition.
        """
        await self._rest()
        if self._commits.broken or self._must_rewind:
            await self._pause()
        found = await self._commits.found()
        await self._gate.load(self._engine.storage)
        self._open_ledger(found)
        if self._claimed.merges is not None:
            marks = {name: self.ledger.watermark((name, self.partition)) for name in self._streams}
            await self._claimed.merges.resume(marks)

    def _open_ledger(self, found: Mapping[At, StoredPosition]) -> None:
        """Begin (again) at what the store holds: nothing is read yet."""
        claimed = self._claimed
        self._must_rewind = False
        self.ledger = Ledger(self.spec, found, claimed.wants)
        self._intake = self._empty_intake()
        self._commits.open(self.ledger, self._intake)
        self._scheduler.open(self.ledger, self._intake)
        if self._idle is not None:
            self._idle.look_again()
        # What an instance remembers of the state may be older than what the store holds.
        self._is_fresh = True
        for stream, reader in zip(self._streams, claimed.readers, strict=True):
            reader.seek(self.ledger.watermark((stream, self.partition)))

    def _empty_intake(self) -> Intake:
        claimed, gate = self._claimed, self._gate
        if self._in_lanes:
            return open_lanes(self.spec, width=self._width, rules=gate.rules, waits=gate.waits)
        return open_in_order(
            self.spec,
            streams=len(self._streams),
            lateness=claimed.lateness,
            merges=claimed.merges,
        )

    async def _carry_out_requests(self) -> None:
        await self._rest()
        while self._requests and not self._commits.broken:
            await self._requests.carry_out_next()
        await self._rewind()

    # --- waiting ----------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Wait until nothing runs and nothing is being committed."""
        if self.ledger.running:
            self._runtime.recall()
            await self._at_rest.wait()
        await self._commits.drain()

    async def _pause(self) -> None:
        """Wait a little longer each time nothing can be done."""
        await self._clock.sleep(self._engine.random.uniform(self._pause_s / 2, self._pause_s))
        self._pause_s = min(self._pause_s * 2, PAUSE_MAX_S)

    async def _wait(self, wait: Wait) -> None:
        """Sleep until there may be something to do."""
        commits = self._commits
        # A commit that lands changes nothing for a worker that sleeps, but for progress that waits to be
        # committed; one that does not land wakes it.
        watches = (not self.ledger.gathered_units and self.ledger.is_ahead) or self._is_crowded
        if self._requests or self._is_stopping or commits.broken:
            return
        if watches and commits.has_ended:
            return
        readers = [self._claimed.readers[place] for place in wait.readers]
        await self._wakeup.wait(wait.seconds, readers, commits.commits if watches else ())
