"""One stream's rules, and what becomes of its events: for each rule that matches, an append.

In: chunks of a watched stream. Out: the appends to the streams of the rules that matched, in the
order of the log. Nothing is written here: the pump that runs the router commits the appends together
with its position, so an event reaches each rule exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.model.bus import Rule
from headrace.model.event import Event
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome, Returned
from headrace.model.partitioning import partition_of
from headrace.model.record import Append, Chunk, encode_events
from headrace.services.bus.envelope import shown
from headrace.services.bus.transform import Transform, transform_of
from headrace.triggers.rules import RuleIndex

REPLAY_HEADER = "headrace-replay"


class Destination(NamedTuple):
    """Where events that a rule means are appended."""

    name: str
    rule: Rule
    stream: str
    partitions: int


class Router:
    """The rules of one stream. The handler of its internal function."""

    def __init__(self, stream: str, destinations: Sequence[Destination]) -> None:
        self.stream = stream
        self._index = RuleIndex()
        self._destinations: dict[str, tuple[Destination, Transform | None]] = {}
        for each in destinations:
            self._index.add(each.name, each.rule.pattern)
            self._destinations[each.name] = each, transform_of(each.rule)

    async def __call__(self, invocation: Invocation) -> Outcome:
        """Forward a batch."""
        appends = self.appends(invocation.chunks, hops=invocation.hops, origin=invocation.origin)
        return Returned(appends=appends)

    def appends(
        self, chunks: Sequence[Chunk], *, hops: int, origin: str, replay: str = ""
    ) -> tuple[Append, ...]:
        """What the rules make of the chunks; `replay` names what brings them again."""
        groups: dict[tuple[str, int], list[Event]] = {}
        for chunk in chunks:
            for index, event in enumerate(chunk.events(), chunk.low):
                self._route(event, chunk, chunk.offset_of(index), replay, groups)
        # No ids are looked up: position and appends land together, so nothing can come twice.
        return tuple(
            Append(stream, partition, len(events), encode_events(events), hops, origin)
            for (stream, partition), events in groups.items()
        )

    def _route(
        self,
        event: Event,
        chunk: Chunk,
        offset: int,
        replay: str,
        groups: dict[tuple[str, int], list[Event]],
    ) -> None:
        position = f"{chunk.stream}/{chunk.partition}/{offset}"
        seen = shown(event, stream=chunk.stream, position=position, appended=chunk.appended)
        headers = event.headers
        if replay:
            headers = {**(headers or {}), REPLAY_HEADER: replay}
        for name in self._index.match(seen):
            to, transform = self._destinations[name]
            value = event.value if transform is None else transform(seen, name, seen["time"])
            number = (
                chunk.partition % to.partitions
                if event.key is None
                else partition_of(event.key, to.partitions)
            )
            groups.setdefault((to.stream, number), []).append(
                Event(
                    value, event.key, event.time_or(chunk.appended), event.id_or(position),
                    headers, event.type, event.source or chunk.stream,
                )
            )  # fmt: skip
