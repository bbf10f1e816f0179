"""Requests to a node's HTTP API as values, each with how its answer is read. Pure.

In: what is asked for. Out: a `Call`, which the synchronous and the asynchronous client send alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from headrace.client.responses import NodeResponse, not_a_node
from headrace.client.views import (
    DeadLetterPage,
    DeadLetterRecord,
    Invocation,
    Message,
    PublishResult,
    ReceivedMessage,
    Settled,
    dead_letter_of,
    received_of,
)
from headrace.model.due_time import DELAY, PRIORITY, UNTIL, Moment, queue_headers
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Misuse
from headrace.model.policy import MAX_VISIBILITY
from headrace.model.route import API_PREFIX

T_co = TypeVar("T_co", covariant=True)
Query = Mapping[str, str | float | bool | None]

ENVELOPES: Final = "application/vnd.headrace.events+x-ndjson"
JSON: Final = "application/json"
MAX_WAIT_S: Final = 20.0
MAX_CALL_S: Final = 86_400.0


class PublishOptions(TypedDict, total=False):
    """Options of publishing events.

    Attributes:
        key: Of each event that names none; events of one key stay in order.
        id: Of the only event: a repetition within the stream's `dedupe_window` is dropped.
        idempotency_key: What repetitions of this request have in common; it may then be sent again.
        media: Of a body of bytes.
    """

    key: str | None
    id: str | None
    idempotency_key: str | None
    media: str


class SendOptions(PublishOptions, total=False):
    """Options of sending messages to a queue.

    Attributes:
        delay: The time before a message is delivered.
        at: The date from which on it is; not together with `delay`.
        priority: Seconds by which it goes ahead, for a queue that has priorities.
    """

    delay: Duration | None
    at: Moment | None
    priority: int | None


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """A request.

    Attributes:
        method: In capitals.
        path: The segments below `/-/v1`, unquoted.
        read: Makes a value of a successful answer.
        query: Parameters; those that are None are left out.
        body: As it is sent.
        media: Its media type.
        headers: Besides those of every request.
        is_repeatable: Whether it may be sent again where the connection broke.
        is_at_root: Whether `path` is not below `/-/v1`.
    """

    method: str
    path: tuple[str, ...]
    read: Callable[[NodeResponse], T_co]
    query: Query = field(default_factory=dict)
    body: bytes | None = None
    media: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = False
    is_at_root: bool = False

    @property
    def target(self) -> str:
        """Path and query as they are sent."""
        target = "" if self.is_at_root else API_PREFIX
        target += "".join(f"/{quote(part, safe='')}" for part in self.path)
        asked = {name: value for name, value in self.query.items() if value is not None}
        return f"{target}?{urlencode(asked)}" if asked else target


def get(path: Iterable[str], query: Query) -> Call[Any]:
    """Read anything; the answer is data."""
    return Call(
        "GET",
        tuple(path),
        NodeResponse.json,
        query,
        is_repeatable=True,
    )


def post(path: Iterable[str], data: object) -> Call[Any]:
    """Change something by a JSON body; the answer is data."""
    body = json.dumps({} if data is None else data).encode()
    return Call("POST", tuple(path), NodeResponse.json, body=body, media=JSON)


def delete(path: Iterable[str]) -> Call[Any]:
    """Delete something; the answer is data."""
    return Call("DELETE", tuple(path), NodeResponse.json)


def publish(
    resource: str,
    name: str,
    value: object,
    *,
    key: str | None = None,
    id: str | None = None,
    idempotency_key: str | None = None,
    media: str = "",
    delay: Duration | None = None,
    at: Moment | None = None,
    priority: int | None = None,
) -> Call[PublishResult]:
    """Publish to a stream (`resource` is `streams`) or a queue (`queues`).

    Raises:
        Misuse: The value is not JSON, or the time cannot be.
    """
    when = queue_headers(delay, at, priority)
    return Call(
        "POST",
        (resource, name),
        _reading(lambda data: msgspec.convert(data, PublishResult)),
        {
            "key": key,
            "id": id,
            "delay": when.get(DELAY),
            "at": when.get(UNTIL),
            "priority": when.get(PRIORITY),
        },
        _body(value),
        media or (JSON if not isinstance(value, bytes) else "application/octet-stream"),
        {} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
        is_repeatable=idempotency_key is not None,
    )


def envelopes(messages: Iterable[Message]) -> bytes:
    """The body of several events, one a line.

    Raises:
        Misuse: A value is not JSON, or a time cannot be.
    """
    return b"\n".join(_encoded(message.envelope()) for message in messages)


def call(
    function: str, value: object, timeout: Duration | None, idempotency_key: str | None
) -> Call[Any]:
    """Call a function by its full name; the answer is what it returns.

    Raises:
        Misuse: The value is not JSON, or the time limit not a duration.
    """
    seconds = None
    if timeout is not None:
        seconds = seconds_in(timeout, "`timeout=`", low=0, high=MAX_CALL_S)
    return Call(
        "POST",
        ("functions", function),
        NodeResponse.json,
        {"timeout": seconds},
        _body(value),
        JSON,
        {} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
        is_repeatable=idempotency_key is not None,
    )


def receive(
    queue: str, most: int, wait: Duration, visibility: Duration | None
) -> Call[list[ReceivedMessage]]:
    """Lease messages of a queue.

    Raises:
        Misuse: A time is not a duration.
    """
    asked: dict[str, object] = {
        "max": most,
        "wait": seconds_in(wait, "`wait=`", low=0, high=MAX_WAIT_S),
    }
    if visibility is not None:
        asked["visibility"] = seconds_in(visibility, "`visibility=`", low=0, high=MAX_VISIBILITY)
    read = post(("queues", queue, "receive"), asked)
    return Call(
        "POST",
        read.path,
        _reading(lambda data: [received_of(row) for row in data["messages"]]),
        body=read.body,
        media=JSON,
    )


def settle(
    queue: str, verb: str, messages: Iterable[ReceivedMessage | str], **more: object
) -> Call[Settled]:
    """Settle messages of a queue: `ack`, `nack` or `extend`."""
    receipts = [each if isinstance(each, str) else each.receipt for each in messages]
    said = post(("queues", queue, verb), {"receipts": receipts, **more})
    return Call(
        "POST",
        said.path,
        _reading(lambda data: msgspec.convert(data, Settled)),
        body=said.body,
        media=JSON,
    )


def nack(
    queue: str, messages: Iterable[ReceivedMessage | str], delay: Duration, reason: str
) -> Call[Settled]:
    """Give messages back.

    Raises:
        Misuse: The delay is not a duration.
    """
    seconds = seconds_in(delay, "`delay=`", low=0, high=MAX_VISIBILITY)
    return settle(queue, "nack", messages, delay=seconds, reason=reason)


def extend(
    queue: str, messages: Iterable[ReceivedMessage | str], duration: Duration
) -> Call[Settled]:
    """Keep messages for longer.

    Raises:
        Misuse: It is not a duration.
    """
    seconds = seconds_in(duration, "`duration=`", low=0, high=MAX_VISIBILITY)
    return settle(queue, "extend", messages, seconds=seconds)


def cancel(queue: str, ids: Iterable[str]) -> Call[list[str]]:
    """Take back messages that wait for their time; the answer is the ids of those that were."""
    said = post(("queues", queue, "cancel"), {"ids": list(ids)})
    cancelled: Callable[[Any], list[str]] = itemgetter("cancelled")
    return Call("POST", said.path, _reading(cancelled), body=said.body, media=JSON)


def dead_letters(function: str | None, limit: int, after: str) -> Call[DeadLetterPage]:
    """Read a page of dead letters."""
    query: Query = {"function": function, "limit": limit, "after": after or None}
    return Call(
        "GET",
        ("dead",),
        _reading(
            lambda data: DeadLetterPage(
                [dead_letter_of(row) for row in data["dead"]], data["after"]
            )
        ),
        query,
        is_repeatable=True,
    )


def change_dead(
    function: str, verb: str, letters: Iterable[DeadLetterRecord | str], *, everything: bool
) -> Call[int]:
    """Redrive or discard (`verb`) dead letters; the answer is how many.

    Raises:
        Misuse: It is not said which, or both some and all.
    """
    positions = [each if isinstance(each, str) else each.position for each in letters]
    if everything == bool(positions):
        raise Misuse("name the dead letters, or say `everything=True`, but not both")
    chosen = {"all": True} if everything else {"positions": positions}
    said = post(("dead", function, verb), chosen)
    names = {"redrive": "redriven", "discard": "discarded"}
    count: Callable[[Any], int] = itemgetter(names[verb])
    return Call("POST", said.path, _reading(count), body=said.body, media=JSON)


def invocations(function: str | None, limit: int) -> Call[list[Invocation]]:
    """Read the latest invocations, newest first."""
    return Call(
        "GET",
        ("invocations",),
        _reading(lambda data: msgspec.convert(data["invocations"], list[Invocation])),
        {"function": function, "limit": limit},
        is_repeatable=True,
    )


V = TypeVar("V")


def _reading(read: Callable[[Any], V]) -> Callable[[NodeResponse], V]:
    """Read the answer's data; what is not as a node writes it is not a node's."""

    def read_answer(answer: NodeResponse) -> V:
        try:
            return read(answer.json())
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise not_a_node(f"its answer lacks what a node says ({error})") from error

    return read_answer


def _body(value: object) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return value if isinstance(value, bytes) else _encoded(value)


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Misuse(
            f"the value cannot be written as JSON: {error}; give JSON data, a dataclass or struct, or bytes"
        ) from error
