"""Router of one stream: for each event and each rule that matches it, an append.

In: chunks of a watched stream. Out: the appends to the streams of the rules that matched, in the
order of the log. Nothing is written here: the partition worker that runs the router commits the appends together
with its position, so an event reaches each rule exactly once. What one rule cannot make of an event, or
its target does not take, goes to the stream of refusals, marked with the rule, and holds up no other rule;
`Refusals` tries it once more, for that rule alone, and fails as any function does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from headrace.bus.envelope import shown
from headrace.bus.transform import Transform, transform_of
from headrace.delivery.commit.delayed_appends import check_priority
from headrace.model.due_time import wait_of
from headrace.model.errors import Unknown, is_final
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.model.partitioner import partition_of
from headrace.model.record import Append, Chunk, encode_events
from headrace.model.triggers.bus import Rule
from headrace.patterns.rule_index import RuleIndex
from headrace.storage.log.append_checks import check_event

REPLAY_HEADER = "headrace-replay"
RULE_HEADER, POSITION_HEADER = "headrace-rule", "headrace-position"

Groups = dict[tuple[str, int], list[Event]]


class Destination(NamedTuple):
    """The target stream of a rule's events."""

    name: str
    rule: Rule
    stream: StreamSpec


class RuleRouter:
    """The rules of one stream. The handler of its internal function.

    Args:
        stream: What is watched.
        destinations: Its rules.
        refusals: The stream, of one partition, of what a rule did not take.
    """

    def __init__(self, stream: str, destinations: Sequence[Destination], refusals: str) -> None:
        self.stream = stream
        self._refusals = refusals
        self._index = RuleIndex()
        self._destinations: dict[str, tuple[Destination, Transform | None]] = {}
        for each in destinations:
            self._index.add(each.name, each.rule.pattern)
            self._destinations[each.name] = each, transform_of(each.rule)

    async def __call__(self, invocation: BatchInvocation) -> Outcome:
        """Forward a batch."""
        hops, origin = invocation.lineage
        return Returned(appends=self.appends(invocation.chunks, hops=hops, origin=origin))

    def appends(
        self, chunks: Sequence[Chunk], *, hops: int, origin: str, replay: str = ""
    ) -> tuple[Append, ...]:
        """The appends that the rules make of the chunks; `replay` names the replay they come from."""
        groups: Groups = {}
        for chunk in chunks:
            for index, event in enumerate(chunk.events(), chunk.low):
                self._route(event, chunk, chunk.offset_of(index), replay, groups)
        return _appends(groups, hops, origin)

    def _route(self, event: Event, chunk: Chunk, offset: int, replay: str, groups: Groups) -> None:
        position = f"{chunk.stream}/{chunk.partition}/{offset}"
        seen = shown(event, stream=self.stream, position=position, appended=chunk.appended)
        marked = None
        for name in self._index.match(seen):
            # Made for the first rule that matches: most events match none.
            if marked is None:
                headers = event.headers
                if replay:
                    headers = {**(headers or {}), REPLAY_HEADER: replay}
                # Wherever it is looked at again, it happened when it stands here.
                marked = replace(event, time=event.time_or(chunk.appended), headers=headers)
            try:
                self.put(name, marked, seen, position, groups)
            except Exception:  # noqa: BLE001 - reported by `Refusals`, where it fails for this rule alone
                marks = {RULE_HEADER: name, POSITION_HEADER: position}
                refused = replace(marked, headers={**(marked.headers or {}), **marks})
                groups.setdefault((self._refusals, 0), []).append(refused)

    def put(
        self, name: str, event: Event, seen: Mapping[str, Any], position: str, groups: Groups
    ) -> None:
        """Add what the rule makes of the event, which it sees like that.

        Raises:
            Unknown: The rule is gone.
            TooLarge, Invalid: Its target does not take what it makes.
            Exception: It can make nothing of the event.
        """
        if name not in self._destinations:
            raise Unknown(f"no rule `{name}` watches `{self.stream}` any more; discard the event")
        to, transform = self._destinations[name]
        value = event.value if transform is None else transform(seen, name, seen["time"])
        made = Event(
            value,
            event.key,
            event.time,
            event.id_or(position),
            event.headers,
            event.type,
            event.source or self.stream,
        )
        _check(made, to.stream)
        count = to.stream.partitions
        # Without a key the source's partition decides, so that the order within it is kept.
        number = (
            int(position.rsplit("/", 2)[1]) % count
            if event.key is None
            else partition_of(event.key, count)
        )
        groups.setdefault((to.stream.name, number), []).append(made)


class Refusals:
    """Refused events, tried again for single rules. The handler of an internal function."""

    def __init__(self, router: RuleRouter) -> None:
        self._router = router

    async def __call__(self, invocation: BatchInvocation) -> Outcome:
        """Put each event to the rule that it is marked with."""
        groups: Groups = {}
        for event in (event for chunk in invocation.chunks for event in chunk.events()):
            headers = dict(event.headers or {})
            name, position = headers.pop(RULE_HEADER, ""), headers.pop(POSITION_HEADER, "")
            # The marks are ours: neither the rule nor its target may see them.
            plain = replace(event, headers=headers or None)
            # The event has its own time (see `_route`), so that of appending is not needed.
            seen = shown(plain, stream=self._router.stream, position=position, appended=0)
            try:
                self._router.put(name, plain, seen, position, groups)
            except Exception as error:  # noqa: BLE001 - as an author's, and it says whose it is
                reason = f"the rule `{name}` does not take {position}: {error}"
                final = is_final(error)
                return Returned(error=Cause(type(error).__name__, reason, retryable=not final))
        return Returned(appends=_appends(groups, *invocation.lineage))


# Checked per rule before the commit: the log refuses a whole change, with the events of all rules.
def _check(event: Event, stream: StreamSpec) -> None:
    """Pass, where the log would: what it refuses when it lands fails for all rules."""
    check_event(event, stream)
    if stream.queue is not None:
        check_priority(event)
        wait_of(event.headers, stream.queue.delay, None)


def _appends(groups: Groups, hops: int, origin: str) -> tuple[Append, ...]:
    # No ids are looked up: position and appends land together, so nothing can come twice.
    return tuple(
        Append(stream, partition, len(events), encode_events(events), hops, origin)
        for (stream, partition), events in groups.items()
    )
