"""Flow control of one partition worker: which unit may run now, what is left out, and which rows must be stored.

It combines the function's policies, the `FlowLimiter` that it shares with the other partition
workers, and the partition's `SampleFilter`. The worker calls it before and after each unit. It
never waits.
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

RECHECK_US = 100_000


class FlowGate:
    """Owned by one partition worker.

    Attributes:
        rules: Its rules for lanes.
        waits: Start times of the waits of debounced keys.
        keeps_time: Whether its rules make lanes wait for a time.
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
        self._sample = SampleFilter(spec, streams, partition)
        self._starts = ThrottleRows(spec.name, streams[0], partition, flow)
        self.waits = DebounceWaits(spec, streams, partition)
        self._spec = spec
        self._inside: dict[int, frozenset[Key]] = {}
        self.rules = _rules(spec, flow)
        # Constant for a version of the function, and read for every run.
        self._is_open = flow.is_open
        self._is_per_key = flow.is_per_key
        self._keeps_rows = not self._sample.is_open or flow.keeps_rows or self.waits.keeps_rows
        self.keeps_time = bool(self._is_per_key or spec.debounce or spec.batch_per_key)

    @property
    def reads_first(self) -> bool:
        """Return whether a later event may replace an earlier one, so that everything must be read first."""
        return self._spec.debounce is not None

    @property
    def is_open(self) -> bool:
        """Return whether its rules never delay a run."""
        return self._is_open

    def filter(
        self, stream: str, chunks: Sequence[Chunk]
    ) -> tuple[Sequence[Chunk], Sequence[Chunk]]:
        """Return the events that pass, and those that the function's `Sample` leaves out."""
        return (chunks, ()) if self._sample.is_open else self._sample.filter(stream, chunks)

    def wait(self) -> float | None:
        """Return the seconds until the function may start a run; None: until one of its runs ends."""
        if self._is_open:
            return 0.0
        now = self._now()
        until = self._flow.until(now)
        return None if until >= FOREVER else (until - now) / MICROS

    def later(self, unit: Unit) -> int:
        """Return when to check again whether the unit's keys may run; 0 if they may now."""
        if not self._is_per_key:
            return 0
        now = self._now()
        until = self._flow.until_keys(_keys(unit), now)
        # A postponed unit waits for its time, even if a run of its key ends earlier; so the pause
        # is short.
        return min(until, now + RECHECK_US) if until > now else 0

    def begin(self, unit: Unit) -> None:
        """Count the unit as running."""
        if not self._is_open:
            keys = _keys(unit) if self._is_per_key else frozenset[Key]()
            # By identity: the hash of a unit would be one of all its bytes.
            self._inside[id(unit)] = keys
            self._flow.begin(keys, self._now())

    def end(self, unit: Unit) -> None:
        """Count the unit as ended."""
        if not self._is_open:
            self._flow.end(self._inside.pop(id(unit)))

    def ahead(self, unit: Unit) -> tuple[Row, ...]:
        """Return the rows to commit before the unit, which is counted as running, is executed."""
        return () if self._is_open else self._starts.ahead(self._inside[id(unit)], self._now())

    def rows(self, finished: Iterable[Chunk]) -> tuple[Row, ...]:
        """Return the rows to commit with the current positions, after these events are finished."""
        if not self._keeps_rows:
            return ()
        self.waits.finished(finished)
        return self._sample.unsaved() + self.waits.unsaved() + self._starts.cleared(self._now())

    def clears(self) -> bool:
        """Return whether rows can be deleted; call it only while there is nothing to read."""
        if not self._keeps_rows:
            return False
        now = self._now()
        # Both are called, without a shortcut: each also collects the rows to delete.
        sample, starts = self._sample.clears(now), self._starts.clears(now)
        return sample or starts

    def clears_in(self) -> float | None:
        """Return the seconds until rows may be deleted; None while there are no rows."""
        if not self._keeps_rows:
            return None
        now = self._now()
        waits = (self._sample.clears_in(now), self._starts.clears_in(now))
        return min((seconds for seconds in waits if seconds is not None), default=None)

    async def load(self, storage: Storage) -> None:
        """Load the rows from the store, in place of those in memory."""
        await self._sample.load(storage)
        await self._starts.load(storage, self._now())
        await self.waits.load(storage)

    def watch(self, notify: Callable[[Key], None]) -> Callable[[], None]:
        """Call `notify` with a key when a run of it ends; return a function that removes the watcher."""
        return self._flow.watch(notify)


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
        # None rather than a function that always allows: lanes then make no call for each event.
        until=flow.until_key if flow.is_per_key else None,
    )
