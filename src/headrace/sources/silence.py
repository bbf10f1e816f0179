"""Events for what did not happen: a stream that went silent, a join that was left incomplete.

In: the records of one or two streams, by when the log took them. Out: one event for each silence or
missing partner. There are no separate counters: what is reported follows from the log and from one
stored time, up to which everything was reported, so that a restart forgets and repeats nothing.
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


class WatchState(msgspec.Struct, frozen=True):
    """The checkpoint: when watching began, and up to when everything was reported (µs)."""

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

    async def run(self, appender: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Misuse: A stream does not exist, or is another app's private one.
        """
        self._check_streams()
        while True:
            try:
                await self._watch(appender)
            except Fenced:
                # Another node has reported; continue from its checkpoint.
                continue

    async def _watch(self, appender: SourceAppender) -> None:
        row = await appender.checkpoint()
        state = None if row is None else msgspec.json.decode(row, type=WatchState)
        # A trigger whose settings changed starts from now: its former time says nothing of the new
        # rule.
        if state is None or state.of != self._of:
            now = self._clock.now()
            state = WatchState(self._of, now, now)
            await appender.emit([], checkpoint=msgspec.json.encode(state))
        judge = self._judge(state)
        # Whatever is still open was appended within one span of what was reported last (two, for a
        # partner that came first).
        reach = self._span * (1 if isinstance(self._trigger, Silence) else 2)
        offsets = await self._offsets(state.until - reach)
        while True:
            # Time of appending is given before the commit, so a record may become visible a little
            # after it.
            now = self._clock.now() - LATE_US
            await self._read(judge, offsets)
            # After a restart the judge sees old records again, and finds cases that were reported
            # before.
            cases = [case for case in judge.due(now) if case.due > state.until]
            while cases:
                page, cases = cases[:MAX_CASES], cases[MAX_CASES:]
                # Cases that came due in one microsecond must not be parted.
                while cases and cases[0].due == page[-1].due:
                    page.append(cases.pop(0))
                state = WatchState(self._of, state.since, page[-1].due)
                events = [self._event(case, appender.stream) for case in page]
                await appender.emit(events, checkpoint=msgspec.json.encode(state))
            if now - state.until > self._span and not judge.is_open_before(now):
                # So that a restart need not read everything since the last event.
                state = WatchState(self._of, state.since, now)
                await appender.emit([], checkpoint=msgspec.json.encode(state))
            appender.works()
            # At most one span: a record may come at any time, and is due no earlier than that
            # after it.
            await wait_until(self._clock, min(judge.next_due(), now + self._span) + LATE_US)

    def _judge(self, state: WatchState) -> Quiet | Partners:
        match self._trigger:
            case Silence(per_key=per_key):
                return Quiet(self._span, begin=None if per_key else state.since)
            case Missing():
                return Partners(self._span, since=state.since)

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
        # Reversed: `min` takes the first of equals, and the right-hand stream has the partners.
        waiting: dict[Place, list[Chunk]] = {place: [] for place in reversed(list(offsets))}
        while True:
            for place in list(waiting):
                if not waiting[place]:
                    waiting[place] = await self._fetch(place, offsets[place])
                    if not waiting[place]:
                        del waiting[place]
            if not waiting:
                return
            # By time of appending over all partitions: a judge that saw one far ahead would report
            # partners as missing that another partition holds.
            place = min(waiting, key=lambda place: waiting[place][0].appended)
            chunk = waiting[place].pop(0)
            self._show(judge, chunk)
            offsets[place] = chunk.end

    async def _fetch(self, place: Place, offset: int) -> list[Chunk]:
        name, partition = place
        # Retention may have removed what would be next.
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

    # --- events -----------------------------------------------------------------------------

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
