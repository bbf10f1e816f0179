"""Appends to queues, split into messages that are due now and messages that are due later.

In: an append, and the description of its queue. Out: its parts; each part that is due later names the row of the store
in which it waits. Streams have no delays: their events are delivered immediately, in order.
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
"""A part that is appended or delayed as one, and the indices of its events."""


class DelayedAppends:
    """Splits appends and names the rows of delayed ones. One per node, so that names are unique."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        # With the number it makes names unique over restarts and nodes.
        self._token = entropy.integer(62)
        self._number = 0

    def split(self, spec: StreamSpec, append: Append) -> tuple[Part, ...]:
        """Return the append, split into a part that is due now and parts that are due `later`.

        Raises:
            Invalid: A message has an invalid delay or priority, or an event of a stream would be
                delayed or cancelled.
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
        # One time for the whole append, so that its messages keep their order.
        now = self._clock.now()
        by_delay: dict[float, list[int]] = {}
        for index, event in enumerate(events):
            check_priority(event)
            wait_s = wait_of(event.headers, spec.queue.delay, now)
            by_delay.setdefault(wait_s, []).append(index)
        # The usual case keeps the blob as it is: encoding it again would cost more than the rest
        # of this.
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
    """Yield the events of one row each: few in a row if single messages may be cancelled by their id."""
    # Cancelling rewrites the whole row, so a row of thousands would make each cancellation slow.
    size = MAX_ROW if seconds and append.ids is not None else len(indices)
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def check_priority(event: Event) -> None:
    """Check the message's priority header, if it has one.

    Raises:
        Invalid: The header is not a number of seconds in range.
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
