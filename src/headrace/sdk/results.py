"""Results that a handler may return or raise, besides plain values: outputs, failures by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, TypedDict, Unpack

from headrace.model.due_time import Moment
from headrace.model.durations import Duration
from headrace.model.errors import HeadraceError
from headrace.sdk.event import SAME_KEY, Event, SameKey
from headrace.sdk.type_variables import T


class MessageOptions(TypedDict, total=False):
    """Options of an event besides its value: those of `Context.publish`."""

    key: str | SameKey | None
    headers: Mapping[str, str] | None
    time: datetime | float | None
    id: str | None
    type: str | None
    delay: Duration | None
    at: Moment | None
    priority: int | None


class Output(Generic[T]):
    """A value for the function's `output` stream, with its key and headers.

    Attributes:
        value: The payload.
        key: The key; left out, it is that of the event at hand, and None says that there is none.
        headers: Short strings besides the payload.
        time: When it happened: an aware datetime or seconds since the epoch.
        id: The mark by which a repeated publish is dropped.
        delay: Of a queue's message: the time before it may be received.
        at: Of a queue's message: when it may be received, in place of `delay`.
        priority: Of a queue's message: whole seconds by which it goes ahead.
        type: What it says, as CloudEvents' `type`, such as `"shop.order.paid"`.
    """

    __slots__ = ("at", "delay", "headers", "id", "key", "priority", "time", "type", "value")

    def __init__(self, value: T, **options: Unpack[MessageOptions]) -> None:
        self.value = value
        self.key = options.get("key", SAME_KEY)
        self.headers = options.get("headers")
        self.time = options.get("time")
        self.id = options.get("id")
        self.type = options.get("type")
        self.delay = options.get("delay")
        self.at = options.get("at")
        self.priority = options.get("priority")
        if unknown := sorted(options.keys() - MessageOptions.__annotations__.keys()):
            raise TypeError(
                f"`Output` has no option `{unknown[0]}`; its options are "
                f"{', '.join(MessageOptions.__annotations__)}"
            )

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
