"""THE loop; read it first: events of one partition -> batch -> function -> verdict -> one commit.

A partition worker owns one partition (of one stream, or of several co-partitioned ones) for one function. It
makes three calls down and nothing else: `read` from the log, `invoke` on the runtime, `apply` to the
store; between them only plain functions decide. It holds nothing that the store does not: kill it
between any two lines and the next owner resumes at the last commit.

    next unit -> invoke -> settle -> land -> next unit ...      (a failed commit: rewind to the store)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from headrace.delivery.commit.committer import Committer
from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import FlowLimiter
from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.partition.coalesced_batches import batches_of
from headrace.delivery.partition.commit_pipeline import CommitPipeline, Hooks
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.invocation import UnitCall, call_of
from headrace.delivery.partition.ledger import Ledger
from headrace.delivery.partition.scheduler import UnitScheduler
from headrace.delivery.partition.settle import RUNAWAY, Verdict, at_most_once, runaway, settle
from headrace.delivery.partition.wakeup import Wakeup
from headrace.delivery.positions import Claim, StoredPosition
from headrace.delivery.unit import Unit
from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.randomness import Entropy
from headrace.environment.tasks import Tasks
from headrace.model.effects import Delete, Effects, Put
from headrace.model.errors import Fenced, Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.hop_limit import runs_away
from headrace.model.outcome import Outcome, Returned
from headrace.model.policy import OnFailure, ParkKey
from headrace.model.record import Chunk
from headrace.runtime.base import RECALLED, Invoker, Lead, RunHandle
from headrace.storage.log.base import Reader
from headrace.telemetry.history import RunHistory, runs_of

PAUSE_MIN, PAUSE_MAX = 0.02, 2.0


class PartitionWorker:
    """Delivers one partition to one function. Its task is the only one that touches its fields."""

    def __init__(
        self,
        spec: FunctionSpec,
        partition: int,
        claims: dict[str, Claim],
        readers: Sequence[Reader],
        *,
        committer: Committer,
        invoker: Invoker,
        clock: Clock,
        entropy: Entropy,
        tasks: Tasks,
        breaker: CircuitBreaker,
        runs: RunHistory,
        lateness: float = 1.0,
        wants: Callable[[Chunk], set[int]] | None = None,
        vet: Callable[[Outcome], Outcome] = lambda outcome: outcome,
        flow: FlowLimiter | None = None,
        recall: Callable[[], None] = lambda: None,
        merges: MergeOrderStore | None = None,
        lead: Lead | None = None,
        compacted: frozenset[str] = frozenset(),
    ) -> None:
        self.spec = spec
        self.partition = partition
        self.paused = False
        self.fenced = False
        self._streams = tuple(claims)
        self._readers = readers
        self._storage = storage = committer.storage
        self._invoker = invoker
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks
        self._breaker = breaker
        self._runs = runs
        self._wants = wants
        self._vet = vet
        self._recall = recall
        self._merges = merges
        # Ordered functions, and merges, are strictly one unit at a time. So is `commit="before"`:
        # what lands after its run moves no position, so nothing would fence the commits behind it.
        one_by_one = spec.mode == "ordered" or len(claims) > 1 or spec.commit == "before"
        self._width = 1 if one_by_one else spec.parallelism
        self._lead = lead if self._width > 1 else None
        self._affinity = f"{self._streams[0]}/{partition}" if self._width == 1 else ""
        self._in_lanes = not one_by_one and spec.works_in_lanes
        self._gate = FlowGate(spec, self._streams, partition, flow or FlowLimiter(spec), clock.now)
        self._waiting = Wakeup()
        self._landing = CommitPipeline(
            spec.name,
            {(name, partition): c.row for name, c in claims.items()},
            committer=committer,
            tasks=tasks,
            width=self._width,
            hooks=Hooks(
                beside=self._beside,
                on_finished=self._finished,
                wake=self._waiting.wake,
            ),
        )
        self._picker = UnitScheduler(
            spec,
            partition,
            self._streams,
            readers,
            storage=storage,
            clock=clock,
            runs=runs,
            gate=self._gate,
            breaker=breaker,
            landing=self._landing,
            merges=merges,
            lateness=lateness,
            width=self._width,
            in_lanes=self._in_lanes,
            compacted=compacted,
            wait=self._wait,
            wake=self._waiting.wake,
        )
        self._errands: deque[Callable[[], Awaitable[None]]] = deque()
        self._picking = asyncio.Lock()
        self._ahead = 0
        self._at_rest = asyncio.Event()
        self._stopping = False
        self._is_over = False
        self._pause_s = PAUSE_MIN
        self._fresh = True
        self._begin({name: claimed.standing for name, claimed in claims.items()})

    # --- one life, one screen ---------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until stopped or fenced; several units at once where order is per key, or none."""
        unwatch = self._gate.watch(self._picker.has_room)
        try:
            # Since it was claimed, an operator may have moved the position: nobody asked us then.
            await self._rewind()
            if self._width == 1:
                await self._work()
            else:
                names = (f"{self.spec.name}/{self.partition} {n}" for n in range(self._width))
                await self._together([self._tasks.start(self._share(), name=n) for n in names])
            await self._landing.drain()
        except Fenced:
            self.fenced = True
        finally:
            unwatch()
            self._stopping = True
            while self._errands:
                await self._errands.popleft()()
            self._is_over = True
            for reader in self._readers:
                reader.close()

    async def _together(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for the workers; one that fails ends them all."""
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    async def _share(self) -> None:
        """One worker's part; where the partition is lost the others end with their units."""
        try:
            await self._work()
        except Fenced:
            self.fenced = True
            self.stop()

    async def _work(self) -> None:
        """One unit after the other, from waiting to landed."""
        call: UnitCall | None = None
        try:
            while (unit := call.unit if call else await self._take_up()) is not None:
                following: UnitCall | None = None
                try:
                    if call is None:
                        await self._write_ahead(unit)
                        if self._landing.broken:
                            continue
                        hit("pump:before-invoke")
                        call = self._call(unit)
                    following = self._send_ahead(call)
                    if following is None and self._runs_dry(call):
                        await self._read_on()
                        following = self._send_ahead(call)
                    outcome = await self._invoke(call)
                    if outcome is None:
                        self.ledger.pending.appendleft(unit)
                        continue
                    hit("pump:after-invoke")
                    now = self._clock.now()
                    verdict = settle(unit, outcome, self.spec, now=now, draw=self._entropy.uniform)
                    self._tell_breaker(verdict)
                    token = call.invocation.token
                    await self._land(unit, outcome, verdict, self.spec.on_failure, token)
                    hit("pump:after-commit")
                finally:
                    self._ahead -= following is not None
                    call = following
                    self._put_down(unit)
        finally:
            if call is not None:
                self._put_down(call.unit)

    async def _write_ahead(self, unit: Unit) -> None:
        """Have on the disk what must be there before the unit runs."""
        ahead = self._gate.ahead()
        if self.spec.commit == "before":
            await self._landing.commit(
                lambda: msgspec.structs.replace(self.ledger.forgotten(unit), extra=ahead)
            )
        elif ahead:
            await self._landing.commit(
                lambda: msgspec.structs.replace(self.ledger.progressed(), extra=ahead)
            )

    def stop(self) -> None:
        """Let the running unit end and land, then return from `run`."""
        self._stopping = True
        self._recall()
        self._waiting.wake()

    def wake(self) -> None:
        """Look again at what holds it up."""
        self._waiting.wake()

    @property
    def is_over(self) -> bool:
        """Whether it has let go of its partition."""
        return self._is_over

    @property
    def in_flight(self) -> list[Unit]:
        """The units being run now."""
        return self.ledger.running

    def pause(self, paused: bool) -> None:
        """Take up nothing new (or go on again)."""
        self.paused = paused
        self._waiting.wake()

    @property
    def is_retrying(self) -> bool:
        """Whether the partition waits for a unit that has failed before."""
        pending = self.ledger.pending
        return bool(pending) and pending[0].attempts > 0

    async def errand(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` between two units, while nothing is in flight, then look at the store again.

        This is how an operator's wish (redrive, reset) is carried out by the partition's one writer.

        Raises:
            Unavailable: The pump has let go of the partition.
        """
        if self._is_over:
            raise Unavailable(f"`{self.spec.name}` has let go of partition {self.partition}")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            if done.done():
                # Whoever asked has gone.
                return
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._errands.append(carry_out)
        self._waiting.wake()
        await done

    # --- what comes next --------------------------------------------------------------------

    async def _take_up(self) -> Unit | None:
        """The next unit, which is then running; None when it is time to stop."""
        if (unit := self._at_hand()) is not None:
            self._begin_unit(unit)
            return unit
        async with self._picking:
            unit = await self._next()
            if unit is not None:
                self._begin_unit(unit)
            return unit

    def _at_hand(self) -> Unit | None:
        """A whole batch that lies ready, where nothing asks for another way than straight on."""
        return self._picker.at_hand() if self._is_free else None

    @property
    def _is_free(self) -> bool:
        """Whether a unit may be taken up without waiting for somebody else."""
        return not (
            self._picking.locked()
            or self._errands
            or self._stopping
            or self.paused
            or (self._landing.is_wary and self._landing.is_crowded(len(self.ledger.running)))
        )

    def _begin_unit(self, unit: Unit) -> None:
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
            self._waiting.wake()

    async def _next(self) -> Unit | None:
        """Wait for the next unit to run; None when it is time to stop."""
        while not self._stopping:
            try:
                if self._landing.wants_attention:
                    await self._collect()
                elif self._errands:
                    await self._run_errands()
                elif self.paused:
                    await self._wait(None)
                elif (pause := self._breaker.remaining(self._clock.monotonic())) > 0:
                    await self._wait(pause)
                elif self._landing.is_wary and self._landing.is_crowded(len(self.ledger.running)):
                    await self._wait(None)
                elif (room := self._gate.wait()) != 0.0:
                    await self._wait(room)
                elif (picked := await self._picker.pick()) is not None and (
                    unit := await self._admitted(picked)
                ) is not None:
                    allowed = self._gate.wait() == 0.0
                    if allowed and self._breaker.wait(self._clock.monotonic()) <= 0:
                        return unit
                    # While this one was picked another partition has begun the last run that was
                    # allowed, or the breaker's trial.
                    self.ledger.pending.appendleft(unit)
            except Unavailable:
                # The log or the store is away: wait, then begin again at what the store holds.
                self._landing.mistrust()
        return None

    async def _admitted(self, picked: Unit) -> Unit | None:
        """What of the unit is to run now; None where all of it waits."""
        if later := self._gate.later(picked):
            self.ledger.postpone(picked, later)
            return None
        unit, aside = self.ledger.divert(picked, self._clock.now())
        self._picker.release(aside)
        for event in (event for chunk in aside for event in chunk.events()):
            # It was picked but does not run: what its key has room for may go instead.
            self._picker.has_room(event.key)
        if unit is None:
            await self._landing.drain()
            await self._landing.commit(self.ledger.progressed)
        elif not unit.parked and any(runs_away(chunk.hops) for chunk in unit.chunks):
            if unit.size > self.spec.batch_size:
                # Only the batch it is in; those beside it are innocent.
                alone = batches_of(unit, self.spec.batch_size)
                self.ledger.pending.extendleft(reversed(alone))
                return None
            await self._land(unit, RUNAWAY, runaway(unit), ParkKey(), 0)
        else:
            # What an operator redrives runs, however long its lineage: somebody has looked at it.
            return unit
        return None

    # --- running ----------------------------------------------------------------------------

    def _call(self, unit: Unit, after: RunHandle | None = None) -> UnitCall:
        """The unit as a call; begun `after` another one where it is sent ahead."""
        invocation = call_of(
            unit,
            self.spec,
            self._entropy,
            now=self._clock.now(),
            affinity=self._affinity,
            # Runs of a partition in lanes take turns on many instances: what one of them remembers,
            # another has changed.
            fresh=self._fresh or self._in_lanes,
        )
        return UnitCall(unit, invocation, None if after is None else after.follow(invocation))

    def _send_ahead(self, call: UnitCall) -> UnitCall | None:
        """Begin the call; send what lies ready behind it, to be begun as soon as this one ends.

        Each worker has one run that has begun, so never more of them than `parallelism`. While one
        has none, nothing is sent ahead: it would wait behind another run, and could begin.
        """
        if self._lead is None:
            return None
        if call.begun is None:
            try:
                call.begun = self._lead(call.invocation)
            except Unavailable:
                # Whoever waits for its end will hear of that too.
                return None
        begun = self._followable(call)
        if begun is None or (unit := self._at_hand()) is None:
            return None
        self._ahead += 1
        self._begin_unit(unit)
        return self._call(unit, begun)

    def _followable(self, call: UnitCall) -> RunHandle | None:
        """The run behind which another one may be sent ahead, if one may."""
        if len(self.ledger.running) - self._ahead < self._width:
            return None
        return call.begun if call.begun is not None and call.begun.takes_another else None

    def _runs_dry(self, call: UnitCall) -> bool:
        """Whether nothing was sent ahead only because nothing is laid ready."""
        return self._followable(call) is not None and self._is_free and self._picker.runs_dry

    async def _read_on(self) -> None:
        """Lay more ready, while no worker is free to."""
        async with self._picking:
            try:
                await self._picker.read(self._clock.monotonic())
            except Unavailable:
                # As in `_next`.
                self._landing.mistrust()

    async def _invoke(self, call: UnitCall) -> Outcome | None:
        """Run it: what came back; None where it did not run."""
        invocation, begun = call.invocation, call.begun
        started = self._clock.monotonic()
        try:
            outcome = await (self._invoker.invoke(invocation) if begun is None else begun.outcome())
        except Unavailable:
            await self._pause()
            return None
        if outcome is RECALLED:
            # It never ran: nothing to judge, nothing to count.
            return None
        outcome = self._vet(outcome)
        self._fresh = False
        self._pause_s = PAUSE_MIN
        wall = self._clock.monotonic() - started
        for run, batches in runs_of(invocation, outcome, wall):
            self._runs.record(run, batches)
        self._picker.convoy.ended(call.unit.size, outcome)
        return outcome

    def _tell_breaker(self, verdict: Verdict) -> None:
        if verdict.healthy:
            self._breaker.succeeded()
        elif verdict.healthy is False:
            if verdict.finished:
                # Batches of a group of coalesced batches that ran before the one that failed.
                self._breaker.succeeded()
            self._breaker.failed(self._clock.monotonic())

    # --- landing ----------------------------------------------------------------------------

    async def _land(
        self, unit: Unit, outcome: Outcome, verdict: Verdict, on_failure: OnFailure, token: int
    ) -> None:
        """Make the verdict durable; a plain one without waiting for the disk."""
        if self._landing.broken:
            return
        if self.spec.commit == "before":
            verdict = at_most_once(verdict)
        kept = outcome if verdict.kept and isinstance(outcome, Returned) else None
        finished = verdict.finished
        if verdict.given_up:
            finished += tuple(lost.chunk for lost in verdict.given_up)
        if kept is not None and self.ledger.is_light(unit, verdict, kept):
            self.ledger.gather(unit, kept)
            self._landing.begin_gathered(finished if self._in_lanes else ())
            await self._landing.room()
            return
        self._landing.write_up()
        plain = self.ledger.is_plain(unit, verdict)
        effects = self.ledger.landed(
            unit, verdict, kept=kept, token=token, on_failure=on_failure, now=self._clock.now()
        )
        if effects is None:
            self._picker.release(finished)
            return
        if verdict.given_up:
            hit("dead-letter:before-commit")
        # In order within the partition, what ran behind it has built on it.
        spare = unit if self._in_lanes and plain and not effects.trouble else None
        commit = self._landing.begin(effects, finished, spare)
        if not plain:
            await asyncio.wait((commit,))
            if not self._landing.broken:
                self._runs.gave_up(self.spec.name, dead=effects.dead, parked=effects.parked)
        else:
            # One turn of the loop: the change is handed to the store before the next run begins,
            # which may ask for the state that this one wrote.
            await self._clock.sleep(0)
            await self._landing.room()

    def _finished(self, finished: Iterable[Chunk]) -> None:
        """The next events of these keys may go: what came before them is kept."""
        if self._picker.release(finished):
            self._waiting.wake()

    def _beside(self, effects: Effects, finished: Iterable[Chunk]) -> tuple[Put | Delete, ...]:
        """What flow control and a merge must remember with the positions."""
        rows = self._gate.rows(finished)
        if self._merges is not None and isinstance(self._picker.intake, Merge):
            rows += self._merges.rows(self._picker.intake, effects.progress)
        return rows

    # --- starting over ----------------------------------------------------------------------

    async def _collect(self) -> None:
        """Forget commits that have landed; rewind where one has not."""
        self._landing.forget_landed()
        if self._landing.broken:
            await self._rewind()

    async def _rewind(self) -> None:
        """Go back to what the store holds.

        Raises:
            Fenced: Another owner holds a partition.
        """
        await self._rest()
        if self._landing.broken:
            await self._pause()
        found = await self._landing.found()
        await self._gate.load(self._storage)
        self._begin(found)
        if self._merges is not None and isinstance(self._picker.intake, Merge):
            marks = {name: self.ledger.watermark(name) for name in self._streams}
            self._picker.intake.resume(await self._merges.load(marks))

    def _begin(self, standing: dict[str, StoredPosition]) -> None:
        """Open the books at what the store says."""
        spec = self.spec
        self.ledger = Ledger(spec, self.partition, standing, self._wants)
        self._landing.open(self.ledger)
        self._fresh = True
        self._picker.open(self.ledger)

    async def _rest(self) -> None:
        """Wait until nothing runs and nothing is being committed."""
        if self.ledger.running:
            self._recall()
            await self._at_rest.wait()
        await self._landing.drain()

    async def _run_errands(self) -> None:
        await self._rest()
        while self._errands and not self._landing.broken:
            await self._errands.popleft()()
        await self._rewind()

    # --- waiting ----------------------------------------------------------------------------

    async def _pause(self) -> None:
        """Wait a little longer each time nothing can be done."""
        await self._clock.sleep(self._entropy.uniform(self._pause_s / 2, self._pause_s))
        self._pause_s = min(self._pause_s * 2, PAUSE_MAX)

    async def _wait(self, seconds: float | None, *readers: Reader) -> None:
        landing = self._landing
        # A commit that lands changes nothing for a partition worker that sleeps, but for progress that waits to
        # be told; one that does not land wakes it.
        tells = (not self.ledger.gathered_units and self.ledger.is_ahead) or (
            self._landing.is_wary and self._landing.is_crowded(len(self.ledger.running))
        )
        if self._errands or self._stopping or landing.broken or (tells and landing.has_ended):
            return
        await self._waiting.wait(seconds, readers, landing.commits if tells else ())
