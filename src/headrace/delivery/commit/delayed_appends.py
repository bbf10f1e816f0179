"""Appends to queues, cut into what lands at once and what is due later.

In: an append, and the description of where it goes. Out: its parts; each that is due later names the
row of the store in which it waits. Streams have no such row: their events come at once, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.due_time import wait_of
from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.flow_control import Priority
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_PRIORITY
from headrace.model.record import Append, decode_events, encode_events
from headrace.storage.log.delayed_messages import MAX_ROW, due_key

MICROS = 1_000_000

Part: TypeAlias = tuple[Append, Sequence[int]]
"""What lands, or waits, as one; and which of the events it is."""


class DelayedAppends:
    """One per node, which names the rows: no two have the same."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._token = entropy.integer(62)
        self._number = 0

    def split(self, spec: StreamSpec, append: Append) -> tuple[Part, ...]:
        """The append, cut into what may land at once and what is `later` (with its row's key).

        Raises:
            Invalid: A message asks for a delay or a priority that cannot be, or what is to wait, or
                is taken back, is an event of a stream.
        """
        if spec.queue is None:
            if append.kind:
                raise Invalid(
                    f"`{spec.name}` is a stream, not a queue: its events come at once, in order; "
                    f'declare it with `app.queue("{spec.name}")`'
                )
            return ((append, range(append.count)),)
        if append.kind == "cancel":
            return ((append, ()),)
        events = decode_events(append.body)
        now = self._clock.now()
        by_delay: dict[float, list[int]] = {}
        for index, event in enumerate(events):
            check_priority(event)
            wait_s = wait_of(event.headers, spec.queue.delay, now)
            by_delay.setdefault(wait_s, []).append(index)
        if list(by_delay) == [0.0]:
            return ((append, range(append.count)),)
        return tuple(
            (self._part(append, [events[index] for index in some], some, seconds, now), some)
            for seconds, indices in by_delay.items()
            for some in _rows_of(indices, seconds, append)
        )

    def _part(
        self, append: Append, events: list[Event], indices: Sequence[int], seconds: float, now: int
    ) -> Append:
        self._number += 1
        key = due_key(now + round(seconds * MICROS), now, self._number, self._token)
        return Append(
            append.stream,
            append.partition,
            len(events),
            encode_events(events),
            append.hops,
            append.origin,
            None if append.ids is None else tuple(append.ids[index] for index in indices),
            key if seconds else b"",
        )


def _rows_of(indices: Sequence[int], seconds: float, append: Append) -> Iterator[Sequence[int]]:
    """The events of one row each: few, where one of them may be taken back by its id."""
    size = MAX_ROW if seconds and append.ids is not None else len(indices)
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def check_priority(event: Event) -> None:
    """Pass, where the message goes ahead by a number of seconds, or says nothing of it.

    Raises:
        Invalid: Its header says what cannot be.
    """
    text = (event.headers or {}).get(Priority().header)
    if text is None:
        return
    try:
        seconds = int(text)
    except ValueError:
        seconds = MAX_PRIORITY + 1
    if not -MAX_PRIORITY <= seconds <= MAX_PRIORITY:
        raise Invalid(
            f"a message has the header `priority: {text:.40}`; use whole seconds from "
            f"{-MAX_PRIORITY:,} to {MAX_PRIORITY:,}"
        )
