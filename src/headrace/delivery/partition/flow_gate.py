"""One partition worker's side of flow control: what may go now, what is left out, and what must be remembered.

It knows the function's policies, the `FlowLimiter` it shares with the other partition workers, and the partition's own
`SampleFilter`; the partition worker asks it before a unit runs and tells it afterwards. Nothing waits here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headrace.delivery.flow.debounce_waits import DebounceWaits
from headrace.delivery.flow.limits import MICROS, FlowLimiter, Key, Row, SampleFilter
from headrace.delivery.flow.throttle_rows import ThrottleRows
from headrace.delivery.intake.lanes import LaneRules
from headrace.delivery.unit import FOREVER, Unit
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk
from headrace.storage.kv.base import Storage

NO_ROOM_US = 100_000


class FlowGate:
    """Owned by one partition worker.

    Attributes:
        rules: What it asks of lanes.
        waits: When the waits of debounced keys began.
        keeps_time: Whether its rules make lanes wait for a date.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        streams: Sequence[str],
        partition: int,
        flow: FlowLimiter,
        now: Callable[[], int],
    ) -> None:
        self._flow = flow
        self._now = now
        self._sieve = SampleFilter(spec, streams, partition)
        self._starts = ThrottleRows(spec.name, streams[0], partition, flow)
        self.waits = DebounceWaits(spec, streams, partition)
        self._spec = spec
        self._inside: dict[int, frozenset[Key]] = {}
        self.rules = _rules(spec, flow)
        # Asked for every run, so it is asked once.
        self._is_open = flow.is_open
        self._is_per_key = flow.is_per_key
        self._keeps_rows = not self._sieve.is_open or flow.keeps_rows or self.waits.keeps_rows
        self.keeps_time = bool(self._is_per_key or spec.debounce or spec.batch_per_key)

    @property
    def reads_first(self) -> bool:
        """Whether a later event may take an earlier one's place, so that all is to be read first."""
        return self._spec.debounce is not None

    @property
    def is_open(self) -> bool:
        """Whether its rules never hold up a run."""
        return self._is_open

    def sift(self, stream: str, chunks: Sequence[Chunk]) -> tuple[Sequence[Chunk], Sequence[Chunk]]:
        """What passes, and what is left out by the function's `Sample`."""
        return (chunks, ()) if self._sieve.is_open else self._sieve.sift(stream, chunks)

    def wait(self) -> float | None:
        """Seconds until the function may begin a run; None: until one of its runs ends."""
        if self._is_open:
            return 0.0
        now = self._now()
        until = self._flow.until(now)
        return None if until >= FOREVER else (until - now) / MICROS

    def later(self, unit: Unit) -> int:
        """When to ask again whether the unit's keys have room; 0 where they have it now."""
        if not self._is_per_key:
            return 0
        now = self._now()
        until = self._flow.until_keys(_keys(unit), now)
        return min(until, now + NO_ROOM_US) if until > now else 0

    def begin(self, unit: Unit) -> None:
        """The unit is taken up."""
        if not self._is_open:
            keys = _keys(unit) if self._is_per_key else frozenset[Key]()
            self._inside[id(unit)] = keys
            self._flow.begin(keys, self._now())

    def end(self, unit: Unit) -> None:
        """It is put down."""
        if not self._is_open:
            self._flow.end(self._inside.pop(id(unit)))

    def ahead(self, unit: Unit) -> tuple[Row, ...]:
        """Rows to be durable before the unit, which was begun, runs."""
        return () if self._is_open else self._starts.ahead(self._inside[id(unit)], self._now())

    def rows(self, finished: Iterable[Chunk]) -> tuple[Row, ...]:
        """Rows that belong to the positions as they stand now, these events being finished."""
        if not self._keeps_rows:
            return ()
        self.waits.finished(finished)
        return self._sieve.unsaved() + self.waits.unsaved() + self._starts.cleared(self._now())

    def clears(self) -> bool:
        """Whether rows can go that say nothing any more; asked while there is nothing to read."""
        if not self._keeps_rows:
            return False
        now = self._now()
        sieve, starts = self._sieve.clears(now), self._starts.clears(now)
        return sieve or starts

    def clears_in(self) -> float | None:
        """Seconds until it is worth asking again; None while there are no rows."""
        if not self._keeps_rows:
            return None
        now = self._now()
        waits = (self._sieve.clears_in(now), self._starts.clears_in(now))
        return min((seconds for seconds in waits if seconds is not None), default=None)

    async def load(self, storage: Storage) -> None:
        """Begin (again) at what the store says."""
        await self._sieve.load(storage)
        await self._starts.load(storage, self._now())
        await self.waits.load(storage)

    def watch(self, told: Callable[[Key], None]) -> Callable[[], None]:
        """Call `told` with a key when a run that held it ends; the answer ends that."""
        return self._flow.watch(told)


def _keys(unit: Unit) -> frozenset[Key]:
    return frozenset(event.key for chunk in unit.chunks for event in chunk.events())


def _rules(spec: FunctionSpec, flow: FlowLimiter) -> LaneRules:
    debounce, singleton = spec.debounce, spec.singleton
    per_key = bool(debounce or singleton or spec.batch_per_key)
    return LaneRules(
        by_key=spec.order == "key" or per_key,
        together=per_key,
        one_key=spec.batch_per_key,
        singly=singleton is not None,
        skip=singleton is not None and singleton.otherwise == "skip",
        quiet=0 if debounce is None else int(debounce.seconds * MICROS),
        longest=int((debounce.longest or 0) * MICROS) if debounce else 0,
        priority=None if spec.priority is None else spec.priority.header,
        until=flow.until_key if flow.is_per_key else None,
    )
