"""A batch: the events of one invocation, in order, and the cursor that knows which one is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, overload

from headrace.sdk.event import Event
from headrace.sdk.type_variables import T


class Cursor:
    """Event of the batch that is being worked on; what is published meanwhile belongs to it.

    Attributes:
        at: The event's index, or -1 outside an iteration.
    """

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = -1


class Batch(Sequence[Event[T]], Generic[T]):
    """The events of one invocation.

    Looping over it moves the cursor: effects made in the loop's body belong to its event, and are
    dropped with it where that event fails. Effects made elsewhere, as in a loop over a sorted copy,
    belong to no single event: where one fails the handler is run again with the others alone.
    """

    __slots__ = ("_cursor", "_events")

    def __init__(self, events: list[Event[T]], cursor: Cursor) -> None:
        self._events = events
        self._cursor = cursor

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event[T]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event[T]]: ...

    def __getitem__(self, index: int | slice) -> Event[T] | list[Event[T]]:
        return self._events[index]

    def __iter__(self) -> Iterator[Event[T]]:
        return self._walk(self._events)

    def __reversed__(self) -> Iterator[Event[T]]:
        return self._walk(self._events[::-1])

    def _walk(self, events: list[Event[T]]) -> Iterator[Event[T]]:
        cursor = self._cursor
        before = cursor.at
        try:
            for event in events:
                cursor.at = event._index
                yield event
        finally:
            cursor.at = before

    def __repr__(self) -> str:
        return f"Batch({len(self._events)} events)"
