"""Results that a handler may return or raise, besides plain values: outputs, failures by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from headrace.model.due_time import Moment
from headrace.model.durations import Span
from headrace.model.errors import HeadraceError
from headrace.sdk.event import Event

T = TypeVar("T")


class Output(Generic[T]):
    """A value for the function's `output` stream, with its key and headers.

    Attributes:
        value: The payload.
        key: The key; None means the input event's key in a handler of single events.
        headers: Short strings besides the payload.
        time: When it happened: an aware datetime or seconds since the epoch.
        id: The mark by which a repeated publish is dropped.
        delay: Of a queue's message: the time before it may be received.
        at: Of a queue's message: when it may be received, in place of `delay`.
    """

    __slots__ = ("at", "delay", "headers", "id", "key", "time", "value")

    def __init__(
        self,
        value: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        time: datetime | float | None = None,
        id: str | None = None,
        delay: Span | None = None,
        at: Moment | None = None,
    ) -> None:
        self.value = value
        self.key = key
        self.headers = headers
        self.time = time
        self.id = id
        self.delay = delay
        self.at = at

    def __repr__(self) -> str:
        return f"Output({self.value!r}, key={self.key!r})"


class Failures:
    """The events of the batch that failed; the others are done. Returned by a handler.

    Attributes:
        events: Events of the batch, or their offsets where the batch is of one partition.
        reason: Why, for the dead letter.
    """

    __slots__ = ("events", "reason")

    def __init__(self, events: Iterable[Event[Any] | int], reason: str = "") -> None:
        self.events = tuple(events)
        self.reason = reason

    def __repr__(self) -> str:
        return f"Failures({list(self.events)!r}, {self.reason!r})"


class Permanent(HeadraceError):
    """Raised by a handler to say that trying the event again is useless."""

    code: ClassVar[str] = "permanent"
