"""What did not happen: a stream that went silent, a join that was left incomplete.

In: the records of one or two streams, by when the log took them. Out: one event for each silence or
missing partner. Nothing is counted on the side: what is told follows from the log and from one
remembered moment, up to which everything was told, so that a restart forgets and repeats nothing.
A look is only taken when something can have come due; a stream is not consumed by being watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.wait_until import wait_until
from headrace.model.errors import Fenced, Misuse
from headrace.model.event import Event
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk
from headrace.model.triggers.files import Missing, Silence
from headrace.sources.base import SourceAppender
from headrace.sources.silence_rules import Case, Partners, Quiet
from headrace.storage.log.base import Broker

MAX_CASES: Final = 1_000
"""Events that one look appends at once."""
LATE_US: Final = 100_000
"""A look is taken this much after its time: a record may be on its way into the log."""
_CHUNK_EVENTS, _CHUNK_BYTES = 10_000, 4 << 20

Place = tuple[str, int]


class Told(msgspec.Struct, frozen=True):
    """What is remembered: when watching began, and up to when everything was told (µs)."""

    of: str
    since: int
    until: int


class FreshnessSource:
    """The source of one `Silence` or `Missing`."""

    def __init__(
        self, function: FunctionSpec, trigger: Silence | Missing, broker: Broker, clock: Clock
    ) -> None:
        self._function = function
        self._trigger = trigger
        self._broker = broker
        self._clock = clock
        self._span = round(trigger.seconds * 1_000_000)
        self._of = msgspec.json.encode(trigger).decode()

    async def run(self, outlet: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Misuse: A stream does not exist, or is another app's private one.
        """
        self._check_streams()
        while True:
            try:
                await self._watch(outlet)
            except Fenced:
                # Another node has told; go on from what it remembered.
                continue

    async def _watch(self, outlet: SourceAppender) -> None:
        row = await outlet.checkpoint()
        told = None if row is None else msgspec.json.decode(row, type=Told)
        if told is None or told.of != self._of:
            now = self._clock.now()
            told = Told(self._of, now, now)
            await outlet.emit([], checkpoint=msgspec.json.encode(told))
        judge = self._judge(told)
        # Whatever is still open was appended within one span of what was told last (two, for a
        # partner that came first).
        reach = self._span * (1 if isinstance(self._trigger, Silence) else 2)
        offsets = await self._offsets(told.until - reach)
        while True:
            now = self._clock.now() - LATE_US
            await self._read(judge, offsets)
            cases = [case for case in judge.due(now) if case.due > told.until]
            while cases:
                page, cases = cases[:MAX_CASES], cases[MAX_CASES:]
                # Cases that came due in one microsecond must not be parted.
                while cases and cases[0].due == page[-1].due:
                    page.append(cases.pop(0))
                told = Told(self._of, told.since, page[-1].due)
                events = [self._event(case, outlet.stream) for case in page]
                await outlet.emit(events, checkpoint=msgspec.json.encode(told))
            if now - told.until > self._span and not judge.is_open_before(now):
                # So that a restart need not read everything since the last event.
                told = Told(self._of, told.since, now)
                await outlet.emit([], checkpoint=msgspec.json.encode(told))
            outlet.works()
            await wait_until(self._clock, min(judge.next_due(), now + self._span) + LATE_US)

    def _judge(self, told: Told) -> Quiet | Partners:
        match self._trigger:
            case Silence(per_key=per_key):
                return Quiet(self._span, begin=None if per_key else told.since)
            case Missing():
                return Partners(self._span, since=told.since)

    # --- reading ----------------------------------------------------------------------------

    @property
    def _streams(self) -> tuple[str, ...]:
        match self._trigger:
            case Silence(stream=stream):
                return (stream,)
            case Missing(left=left, right=right):
                return left, right

    def _check_streams(self) -> None:
        for name in self._streams:
            spec = self._broker.stream(name)
            if spec.private and spec.owner != self._function.app:
                raise Misuse(
                    f"`{self._function.name}`: stream `{name}` is private to app `{spec.owner}`; "
                    "watch a public stream"
                )

    async def _offsets(self, since: int) -> dict[Place, int]:
        return {
            (name, partition): await self._broker.offset_at(name, partition, max(since, 0))
            for name in self._streams
            for partition in range(self._broker.stream(name).partitions)
        }

    async def _read(self, judge: Quiet | Partners, offsets: dict[Place, int]) -> None:
        """Show the judge what is new in the order the log took it, whatever partition it is in.

        At the same moment partners go first: they are the reason for what is left out.
        """
        waiting: dict[Place, list[Chunk]] = {place: [] for place in reversed(list(offsets))}
        while True:
            for place in list(waiting):
                if not waiting[place]:
                    waiting[place] = await self._fetch(place, offsets[place])
                    if not waiting[place]:
                        del waiting[place]
            if not waiting:
                return
            place = min(waiting, key=lambda place: waiting[place][0].appended)
            chunk = waiting[place].pop(0)
            self._show(judge, chunk)
            offsets[place] = chunk.end

    async def _fetch(self, place: Place, offset: int) -> list[Chunk]:
        name, partition = place
        low = (await self._broker.extent(name, partition)).low
        return await self._broker.fetch(
            name, partition, max(offset, low), events=_CHUNK_EVENTS, size=_CHUNK_BYTES
        )

    def _show(self, judge: Quiet | Partners, chunk: Chunk) -> None:
        match self._trigger:
            case Silence(per_key=False):
                judge.see("", chunk.appended, f"{chunk.stream}/{chunk.partition}/{chunk.end - 1}")
            case Silence():
                for key, place in _keys(chunk):
                    judge.see(key, chunk.appended, place)
            case Missing(left=left):
                see: Callable[[str, int, str], None] = judge.see
                if isinstance(judge, Partners) and chunk.stream != left:
                    see = judge.see_partner
                for key, place in _keys(chunk):
                    see(key, chunk.appended, place)

    # --- telling ----------------------------------------------------------------------------

    def _event(self, case: Case, stream: str) -> Event:
        # One that watches a whole stream has no key; an empty key is a key.
        key = case.key if getattr(self._trigger, "per_key", True) else None
        value: dict[str, Any] = {"key": key, "last": case.place or None}
        if isinstance(self._trigger, Silence):
            kind = "headrace.silence"
            value |= {"stream": self._trigger.stream, "after": self._trigger.seconds}
        else:
            kind = "headrace.missing"
            value |= {"left": self._trigger.left, "right": self._trigger.right}
            value["within"] = self._trigger.seconds
        return Event(
            msgspec.json.encode(value),
            key=key,
            time=case.due,
            id=f"{stream}@{case.key}@{case.place}@{case.due}",
            type=kind,
            source=stream,
        )


def _keys(chunk: Chunk) -> Iterator[tuple[str, str]]:
    """The key and position of every event that has a key."""
    for index, event in enumerate(chunk.events(), start=chunk.low):
        if event.key is not None:
            yield event.key, f"{chunk.stream}/{chunk.partition}/{chunk.offset_of(index)}"
