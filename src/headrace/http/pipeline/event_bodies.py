"""A request's body -> events: one value, many lines, envelopes, or CloudEvents.

The media type determines how the body is framed, the stream's codec what each value must be. A request
with one invalid event is refused as a whole, and the error names the line. Pure; publishes nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec

from headrace.http.pipeline.cloudevents import ValueFormat, batch, binary, is_binary, structured
from headrace.http.pipeline.event_times import micros_of
from headrace.http.request import IncomingRequest
from headrace.model.codec import validate_json
from headrace.model.due_time import PRIORITY, queue_headers
from headrace.model.errors import Invalid, Misuse, TooLarge
from headrace.model.event import Event, fenced
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_BATCH

LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
ENVELOPES = "application/vnd.headrace.events+x-ndjson"
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"
MAX_IDEMPOTENCY_KEY = 200

Check = Callable[[bytes], None]


class Payload(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A payload in one of three forms; exactly one is given."""

    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value_text: str | msgspec.UnsetType = msgspec.UNSET
    value_base64: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_empty(self) -> bool:
        """Return whether none is given."""
        return self.value is self.value_text is self.value_base64 is msgspec.UNSET


class EnvelopeLine(Payload, forbid_unknown_fields=True, gc=False):
    """One line of an envelope body."""

    key: str | None = None
    time: Annotated[float, msgspec.Meta(ge=0)] | datetime | None = None
    id: str | None = None
    headers: dict[str, str] | None = None
    type: str | None = None
    source: str | None = None
    delay: float | str | None = None
    at: float | str | None = None


_envelope = msgspec.json.Decoder(EnvelopeLine)


PUBLISHING = ("key", "envelope", "id", "delay", "at", "priority")
"""The query parameters that it reads."""


async def read_events(request: IncomingRequest, stream: StreamSpec) -> list[Event]:
    """Read the events that a request publishes to a stream; at least one.

    Raises:
        Invalid: The body is not of its media type, or a value is not of the stream's codec.
        TooLarge: There are more than 10,000 events.
    """
    media = request.media
    body = await request.body()
    key = request.query.get("key")
    if key is None:
        key = request.header("headrace-key")
    check = CHECKS[stream.codec]
    values = ValueFormat(check, NOTHING[stream.codec])
    if media == ENVELOPES or (media in LINES and request.query.get("envelope") in {"1", "true"}):
        events = envelopes(body, key, check, now=None if stream.queue else _not_a_queue(stream))
    elif media in LINES:
        events = lines(body, key, check)
    elif media == CLOUDEVENT:
        events = [structured(body, key, values)]
    elif media == CLOUDEVENTS:
        events = batch(body, key, values)
    # After the media types: with binary mode, `content-type` is the data's own.
    elif is_binary(request.headers):
        events = [binary(request.headers, body, key, values)]
    else:
        check(body)
        events = [Event(value=body, key=key)]
    if not events:
        raise Invalid("the body holds no event; send at least one")
    usual = _usual_headers(request, stream)
    if usual:
        events = [
            msgspec.structs.replace(event, headers={**usual, **(event.headers or {})})
            for event in events
        ]
    if (named := request.query.get("id")) is not None:
        if len(events) != 1:
            raise Invalid(f"`id={named}` names one event, but the body holds {len(events)}")
        events = [msgspec.structs.replace(events[0], id=named)]
    token = request.header("idempotency-key")
    return events if token is None else with_ids(events, token)


def _usual_headers(request: IncomingRequest, stream: StreamSpec) -> dict[str, str]:
    """Return the headers that the query sets for all messages: `delay` or `at`, `priority`; a message's own win."""
    query = request.query
    if stream.queue is None:
        if "delay" in query or "at" in query:
            raise Invalid(_not_a_queue(stream))
        return {}
    found = _due(query.get("delay"), query.get("at"))
    if "priority" in query:
        found[PRIORITY] = query["priority"]
    return found


def _due(delay: float | str | None, at: float | str | None) -> dict[str, str]:
    try:
        return queue_headers(delay, at)
    except Misuse as error:
        raise Invalid(f"{error}") from error


def _not_a_queue(stream: StreamSpec) -> str:
    return (
        f"`{stream.name}` is a stream, not a queue: its events come at once, in order, so leave out "
        "`delay` and `at`"
    )


def lines(body: bytes, key: str | None, check: Check) -> list[Event]:
    """Read one value per line; skip empty lines.

    Raises:
        Invalid: A line's value is not of the stream's codec.
    """
    events: list[Event] = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        # Not `strip()`: it would also remove form feeds and vertical tabs, which may belong to a
        # text value.
        value = line.strip(b" \t\r")
        if not value:
            continue
        try:
            check(value)
        except Invalid as error:
            raise Invalid(f"line {number}: {error}") from error
        events.append(Event(value=value, key=key))
        _bound(len(events))
    return events


def envelopes(body: bytes, key: str | None, check: Check, *, now: str | None = None) -> list[Event]:
    """Read one envelope per line: a value with its key, time, id, headers, and due time.

    Args:
        body: The lines.
        key: The key of events whose envelope has none.
        check: Raises `Invalid` where a value is not of the stream's codec.
        now: Why events cannot be delayed; None where they can.

    Raises:
        Invalid: A line is not an envelope, its value is not of the stream's codec, or it cannot be delayed.
    """
    events: list[Event] = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip(b" \t\r"):
            continue
        try:
            events.append(_open(line, key, check, now))
        except Invalid as error:
            raise Invalid(f"line {number}: {error}") from error
        _bound(len(events))
    return events


def _open(line: bytes, key: str | None, check: Check, now: str | None) -> Event:
    try:
        found = _envelope.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"this is not an envelope: {error}") from error
    plain = found.value_text is msgspec.UNSET and found.value_base64 is msgspec.UNSET
    # Nearly every line has a plain `value`; `value_of` costs a call and three comparisons more.
    value = (
        bytes(found.value) if plain and isinstance(found.value, msgspec.Raw) else value_of(found)
    )
    check(value)
    time = None if found.time is None else micros_of(found.time)
    headers = found.headers
    if found.delay is not None or found.at is not None:
        if now is not None:
            raise Invalid(now)
        headers = {**(headers or {}), **_due(found.delay, found.at)}
    return Event(
        value,
        key if found.key is None else found.key,
        time,
        found.id,
        headers,
        found.type,
        found.source,
    )


def value_of(found: Payload) -> bytes:
    """Return the payload's bytes.

    Raises:
        Invalid: None or several of the three are given, or one cannot be decoded.
    """
    if isinstance(found.value, msgspec.Raw) and found.value_text is found.value_base64:
        return bytes(found.value)
    three = (found.value, found.value_text, found.value_base64)
    given = sum(part is not msgspec.UNSET for part in three)
    if given != 1:
        raise Invalid(
            f"write exactly one of `value`, `value_text` and `value_base64`; there are {given}"
        )
    if isinstance(found.value_text, str):
        return found.value_text.encode()
    if isinstance(found.value_base64, str):
        try:
            return base64.b64decode(found.value_base64, validate=True)
        except binascii.Error as error:
            raise Invalid(f"`value_base64` is not base64: {error}") from error
    raise AssertionError("the one that is given is one of the three")


def with_ids(events: list[Event], token: str) -> list[Event]:
    """Return the events with ids derived from an idempotency key, where they have none.

    Raises:
        Invalid: The key is empty or too long.
    """
    token = token.strip().strip('"')
    if not token or len(token) > MAX_IDEMPOTENCY_KEY:
        raise Invalid(
            f"`Idempotency-Key` has {len(token)} characters; use 1 to {MAX_IDEMPOTENCY_KEY}"
        )
    alone = len(events) == 1
    # A `/` of the key is percent-encoded, so that the key `a/1` of a single event is not the id of
    # the second event of a batch with the key `a`.
    token = fenced(token, "/")
    return [
        event
        if event.id is not None
        else msgspec.structs.replace(event, id=token if alone else f"{token}/{number}")
        for number, event in enumerate(events)
    ]


def _bound(count: int) -> None:
    if count > MAX_BATCH:
        raise TooLarge(f"the body holds more than {MAX_BATCH:,} events; send several requests")


def _check_json(value: bytes) -> None:
    if not value.strip():
        raise Invalid("the body is empty, and the stream holds JSON; send a JSON value")
    validate_json(value)


def _check_text(value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"the value is not UTF-8 text: {error}") from error


def _check_msgpack(value: bytes) -> None:
    try:
        msgspec.msgpack.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"the value is not msgpack: {error}") from error


def _check_bytes(_: bytes) -> None:
    """Accept any bytes."""


CHECKS: dict[str, Check] = {
    "json": _check_json,
    "text": _check_text,
    "msgpack": _check_msgpack,
    "bytes": _check_bytes,
}
NOTHING = {"json": b"null", "text": b"", "msgpack": b"\xc0", "bytes": b""}
"""The value of an event without data, by codec."""
