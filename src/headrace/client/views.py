"""Values that the clients take and return: messages, positions, dead letters, invocations."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from headrace.model.due_time import DELAY, UNTIL, Moment, queue_headers
from headrace.model.durations import Duration


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One of several events that are published together.

    Attributes:
        value: JSON data, a dataclass or struct; bytes as they are, for a stream of bytes.
        key: Events of one key stay in order.
        id: A repetition within the stream's `dedupe_window` is dropped.
        type: What kind of event it is.
        source: Where it comes from.
        time: When it happened.
        headers: Texts that travel with it.
        delay: To a queue: the time before it is delivered.
        at: To a queue: the date from which on it is.
    """

    value: Any
    key: str | None = None
    id: str | None = None
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    headers: Mapping[str, str] | None = None
    delay: Duration | None = None
    at: Moment | None = None

    def envelope(self) -> dict[str, Any]:
        """The line that is sent.

        Raises:
            Misuse: `delay` or `at` cannot be.
        """
        when = queue_headers(self.delay, self.at)
        line = {
            "key": self.key,
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "time": self.time,
            "headers": self.headers and dict(self.headers),
            "delay": when.get(DELAY),
            "at": when.get(UNTIL),
        }
        shown = {name: text for name, text in line.items() if text is not None}
        if isinstance(self.value, bytes):
            return shown | {"value_base64": base64.b64encode(self.value).decode()}
        return shown | {"value": self.value}


class PublishResult(msgspec.Struct, frozen=True):
    """Result of publishing, event by event in their order.

    Attributes:
        positions: `stream/partition/offset`; None for an event that was dropped, or waits for its time.
        duplicates: How many were there already.
        delayed: How many wait for their time.
    """

    positions: list[str | None]
    duplicates: int
    delayed: int


class ReceivedMessage(msgspec.Struct, frozen=True):
    """A message of a queue that is this client's for a while.

    Attributes:
        receipt: What acknowledges it.
        position: Where it is, `queue/partition/offset`.
        attempt: How often it has been received, from 1.
        until: When others may receive it.
        value: JSON data, a text or bytes, as the queue's codec says.
        key: Its key.
        id: Its id.
        headers: Texts that travel with it.
    """

    receipt: str
    position: str
    attempt: int
    until: datetime
    value: Any = None
    key: str | None = None
    id: str | None = None
    headers: dict[str, str] = {}


class Settled(msgspec.Struct, frozen=True):
    """Result of settling messages by their receipts.

    Attributes:
        settled: How many receipts were good.
        stale: Those that were not: the message may have been received by others meanwhile.
    """

    settled: int
    stale: list[str]


class DeadLetterEvent(msgspec.Struct, frozen=True):
    """Event of a dead letter.

    Attributes:
        value: JSON data, a text or bytes.
        key: Its key.
        id: Its id.
        type: What kind of event it is.
        source: Where it comes from.
        time: When it happened.
        headers: Texts that travel with it.
    """

    value: Any = None
    key: str | None = None
    id: str | None = None
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    headers: dict[str, str] = {}


class FailureCause(msgspec.Struct, frozen=True):
    """Cause of a failure.

    Attributes:
        kind: The exception's class name, or `Crashed`, `TimedOut`, `OutOfMemory`.
        message: Its text.
        traceback: The author's frames; "" where there are none.
    """

    kind: str
    message: str
    traceback: str = ""


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """An event that a function gave up.

    Attributes:
        function: The function's full name.
        position: Where the event was, `stream/partition/offset`.
        cause: Why the last attempt failed.
        attempts: How often it was tried.
        event: The event.
        failed: When it was given up.
    """

    function: str
    position: str
    cause: FailureCause
    attempts: int
    event: DeadLetterEvent
    failed: datetime | None = None


class DeadLetterPage(msgspec.Struct, frozen=True):
    """A page of dead letters.

    Attributes:
        letters: By function and position.
        after: What the next page is asked for with; "" at the end.
    """

    letters: list[DeadLetterRecord]
    after: str


class Invocation(msgspec.Struct, frozen=True):
    """A run of a function, as it ended.

    Attributes:
        function: The function's full name.
        key: The idempotency key of the run.
        instance: The instance that ran it; "" where none did.
        started: When it was sent there.
        wall: Seconds from there to the outcome.
        events: How many it was about.
        attempt: The number of the attempt, from 1.
        outcome: `succeeded`, `partial`, `failed`, `crashed` or `timed-out`.
        first: The position of its first event; "" for a call.
        cause: Why it failed; "" where it did not.
        cold: Whether an instance was started for it.
    """

    function: str
    key: str
    instance: str
    started: datetime
    wall: float
    events: int
    attempt: int
    outcome: str
    first: str
    cause: str = ""
    cold: bool = False


def received_of(row: Mapping[str, Any]) -> ReceivedMessage:
    """A message as the node shows it."""
    return msgspec.convert(_opened(row), ReceivedMessage)


def dead_letter_of(row: Mapping[str, Any]) -> DeadLetterRecord:
    """A dead letter as the node shows it."""
    return msgspec.convert(
        {**row, "event": _opened(row["event"]), "failed": row["failed"] or None}, DeadLetterRecord
    )


def _opened(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, its payload under `value` in whichever form it came."""
    shown = dict(row)
    if "value_text" in shown:
        shown["value"] = shown.pop("value_text")
    elif "value_base64" in shown:
        shown["value"] = base64.b64decode(shown.pop("value_base64"))
    return shown
