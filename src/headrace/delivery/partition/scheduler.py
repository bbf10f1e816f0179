"""What a partition worker runs next: what failed before, what is redriven, what is new; or a wait for it.

In: the books of one partition, the readers of its streams, what flow control lets go. Out: units, one
at a time. It reads the log and lays aside what is left out; what came of a run is not its business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from headrace.delivery.flow.breaker import CircuitBreaker
from headrace.delivery.flow.limits import Key
from headrace.delivery.intake.base import intake_of
from headrace.delivery.intake.batcher import Batcher
from headrace.delivery.intake.lanes import LaneRules, Lanes
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.parked import parked_events, redriven
from headrace.delivery.partition.coalesced_batches import CoalescedBatches
from headrace.delivery.partition.commit_pipeline import CommitPipeline
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.key_order import turn
from headrace.delivery.partition.ledger import Lane, Ledger
from headrace.delivery.unit import FOREVER, Unit
from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.model.function import FunctionSpec
from headrace.model.hop_limit import runs_away
from headrace.model.record import Chunk
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Reader
from headrace.telemetry.history import RunHistory

MICROS = 1_000_000
SLICE_S = 30.0


class UnitScheduler:
    """Owned by one partition worker, whose workers ask it one at a time.

    Args:
        streams: What the partition is of, as its readers are ordered.
        in_lanes: Whether order is per key, or there is none.
        compacted: Which of the streams keep the last event of each key only.
        wait: Sleeps for some seconds (None: for ever), or until a reader has something or the pump
            is woken.
        wake: Wakes the pump.

    Attributes:
        intake: What was read and is not picked yet.
        convoy: How many batches go together now.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        partition: int,
        streams: Sequence[str],
        readers: Sequence[Reader],
        *,
        storage: Storage,
        clock: Clock,
        runs: RunHistory,
        gate: FlowGate,
        breaker: CircuitBreaker,
        landing: CommitPipeline,
        merges: MergeOrderStore | None,
        lateness: float,
        width: int,
        in_lanes: bool,
        compacted: frozenset[str],
        wait: Callable[..., Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        self.convoy = CoalescedBatches(spec)
        self._spec = spec
        self._partition = partition
        self._streams = streams
        self._readers = readers
        self._storage = storage
        self._clock = clock
        self._runs = runs
        self._gate = gate
        self._breaker = breaker
        self._landing = landing
        self._merges = merges
        self._lateness = lateness
        self._width = width
        self._in_lanes = in_lanes
        self._compacted = compacted
        self._wait = wait
        self._wake = wake
        # Their events go as they lie; other rules have to be asked each time.
        self._plain_lanes = gate.rules in (LaneRules(), LaneRules(by_key=False))

    def open(self, ledger: Ledger) -> None:
        """Begin anew with these books: nothing is read yet."""
        spec = self._spec
        self._ledger = ledger
        self._read_events = max(spec.batch_size * max(self.convoy.most, 2), 256)
        self._read_size = spec.batch_bytes * 2
        self.intake = intake_of(
            spec,
            streams=len(self._streams),
            lanes=self._in_lanes,
            width=self._width,
            rules=self._gate.rules,
            lateness=self._lateness,
            waits=self._gate.waits,
        )
        for stream, reader in zip(self._streams, self._readers, strict=True):
            reader.seek(ledger.watermark(stream))

    def at_hand(self) -> Unit | None:
        """A whole batch that lies ready, where nothing asks for another way than straight on."""
        intake, landing = self.intake, self._landing
        if not (
            (isinstance(intake, Batcher) or (self._plain_lanes and isinstance(intake, Lanes)))
            and intake.is_full
        ):
            return None
        if not (self._ledger.is_clear and self._gate.is_open and self._breaker.is_closed):
            return None
        landing.forget_landed()
        if landing.broken:
            return None
        (unit,) = self._ledger.units(self._take(self._clock.monotonic()))
        for chunk in unit.chunks:
            if runs_away(chunk.hops):
                self._ledger.pending.append(unit)
                return None
        return unit

    async def pick(self) -> Unit | None:
        """The next unit, in this order: what failed before, what is redriven, what is new."""
        pending = self._ledger.pending
        wait_s: float | None = None
        if pending:
            now = self._clock.now()
            place, due = self._turn(now)
            if place is not None:
                head = pending[place]
                del pending[place]
                return head
            wait_s = self._patience(due, now)
            if not self._in_lanes:
                await self._wait(wait_s)
                return None
        redriving = self._ledger.redriving()
        for lane, draining in self._ledger.parked.items():
            if draining and lane not in redriving:
                return await self._redriven(lane)
        return await self._batch(wait_s)

    def _patience(self, due: int, now: int) -> float | None:
        """Seconds to wait for what is due then; None where only an operator ends the wait."""
        if due >= FOREVER:
            return None
        wait_s = (due - now) / MICROS
        if wait_s > self._spec.retry.cap + SLICE_S:
            # No retry is that far away: the wall clock was set back since it was planned.
            self._ledger.hasten(now + int(self._spec.retry.cap * MICROS))
        # In slices, so that a wall clock set forward is noticed soon.
        return min(wait_s, SLICE_S)

    def _turn(self, now: int) -> tuple[int | None, int]:
        """The place in `pending` of the unit to run now, or None; and when one is due."""
        ledger = self._ledger
        if not self._in_lanes:
            # What failed holds up everything behind it.
            due = ledger.pending[0].due
            return (0, due) if due <= now else (None, due)
        if not ledger.is_split:
            return 0, now
        rules = self._gate.rules
        # A lane is one key's, but units cut from one batch may share keys: what one of them has done is
        # kept before the next one runs, as between two batches.
        landing = Unit(tuple(self._landing.unfinished()))
        return turn(
            ledger.pending,
            (*ledger.running, landing),
            now,
            by_key=rules.by_key,
            together=rules.together,
        )

    async def _batch(self, retry_s: float | None) -> Unit | None:
        """New events from the log, or None after a wait."""
        if self._merges is not None and self._merges.is_due:
            await self._merges.trim()
        now = self._clock.monotonic()
        if self._gate.keeps_time and isinstance(self.intake, Lanes):
            self.intake.look(self._clock.now())
        wanting = self.intake.wanting()
        read_any = await self.read(now)
        if read_any and self._gate.reads_first:
            # What is read next may take the place of what was read now.
            self._look_over()
            return None
        wait_s = self.intake.wait(now)
        if wait_s == 0.0 and (chunks_taken := self._take(now)):
            is_clear = self._ledger.is_clear and not self._in_lanes
            units = self._ledger.units(chunks_taken)
            if is_clear:
                # Nothing of it has failed before, and nothing stands before it.
                self._look_over()
                return units[0]
            # They pass through `pending`, where a unit that has failed before waits its time.
            self._ledger.pending.extend(units)
        self._look_over()
        if wait_s != 0.0 and not read_any:
            has_read_all = len(wanting) == len(self._readers)
            if not self._landing.commits and (
                self._ledger.is_ahead or (has_read_all and self._gate.clears())
            ):
                # Nothing to run, but something was filtered out or is gone: that is progress too.
                await self._landing.commit(self._ledger.progressed)
                return None
            all_waits = (wait_s, retry_s, self._gate.clears_in())
            waits = [seconds for seconds in all_waits if seconds is not None]
            await self._wait(min(waits, default=None), *(self._readers[index] for index in wanting))
        return None

    async def read(self, now: float) -> bool:
        """Lay what the readers have behind what waits; whether there was anything."""
        read_any = False
        for index in self.intake.wanting():
            chunks = await self._readers[index].read(events=self._read_events, size=self._read_size)
            if chunks:
                hit("pump:after-read")
                read_any = True
                stream = self._streams[index]
                admitted = self._ledger.admit(stream, chunks)
                if self._ledger.missed:
                    self._tell_missed()
                passing, left = self._gate.sift(stream, admitted)
                self._leave_out("rate", left)
                self.intake.add(index, passing, now - self._age(passing))
        return read_any

    def _tell_missed(self) -> None:
        """What retention has taken; what compaction takes, nobody is meant to see."""
        missed, self._ledger.missed = self._ledger.missed, []
        for each in missed:
            if each.stream not in self._compacted:
                self._runs.missed(self._spec.name, self._partition, each, self._clock.now())

    def _age(self, chunks: Sequence[Chunk]) -> float:
        """Seconds since the log took the first of these: a window counts from then, over any crash."""
        return max(self._clock.now() - chunks[0].appended, 0) / MICROS if chunks else 0.0

    def _take(self, now: float) -> tuple[Chunk, ...]:
        """The next batch, or a group of coalesced batches where nothing holds anything up."""
        intake = self.intake
        if not isinstance(intake, Batcher):
            return intake.take(now)
        is_free = self._ledger.is_clear and self._gate.is_open and self._breaker.is_closed
        return intake.take(now, self.convoy.size if is_free else 1)

    @property
    def runs_dry(self) -> bool:
        """Whether a worker that asks now would find nothing at hand, for want of reading alone."""
        intake = self.intake
        return (
            self._plain_lanes
            and isinstance(intake, Lanes)
            and not intake.is_full
            and bool(intake.wanting())
            and self._ledger.is_clear
            and not self._landing.broken
        )

    def _look_over(self) -> None:
        """What the lanes have left out counts as done, and is told."""
        if isinstance(self.intake, Lanes):
            for chunk, why in self.intake.left_out():
                self._leave_out(why, (chunk,))

    def _leave_out(self, why: str, chunks: Sequence[Chunk]) -> None:
        if chunks:
            self._ledger.leave_out(chunks)
            self._runs.left_out(self._spec.name, why, chunks, self._clock.now())

    def has_room(self, key: Key) -> None:
        """A run that held the key has ended, here or in another partition."""
        if isinstance(self.intake, Lanes):
            self.intake.unblock(key)
        self._wake()

    async def _redriven(self, lane: Lane) -> Unit | None:
        """The first event waiting in a lane that is being redriven, or None once it is free."""
        laid = self._ledger.laid_behind(lane)
        if self._ledger.lays_aside:
            await self._landing.commit(self._ledger.progressed)
        await self._landing.drain()
        if self._landing.broken:
            return None
        name, stream, key = self._spec.name, lane[0], lane[1]
        waiting = await parked_events(self._storage, name, stream, self._partition, key, limit=1)
        if waiting:
            unit = redriven(waiting[0])
            if unit.due <= self._clock.now():
                return unit
            self._ledger.postpone(unit, unit.due)
            return None
        if self._ledger.laid_behind(lane) != laid:
            # Another worker has met its key meanwhile: what it laid aside may be on its way yet.
            return None
        # From here on nothing is laid behind it: no row may be left where no key is parked.
        del self._ledger.parked[lane]
        await self._landing.commit(lambda: self._ledger.freed(lane))
        return None

    def release(self, chunks: Iterable[Chunk]) -> bool:
        """These events are finished, what their lanes hold back may go; whether there were lanes."""
        return isinstance(self.intake, Lanes) and self.intake.release(chunks)
