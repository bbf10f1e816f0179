"""Values -> HTTP: responses, and the JSON form of the platform's values.

Times are RFC 3339, positions `stream/partition/offset`, payloads JSON where they are JSON, else
`value_text` or `value_base64`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from headrace.delivery.parked import decode_event
from headrace.delivery.publisher import PublishReceipt
from headrace.environment.time_slices import Slices
from headrace.model.effects import DeadEvent
from headrace.model.event import Event
from headrace.model.outcome import Cause
from headrace.model.record import Position

_encoder = msgspec.json.Encoder()
_raw = msgspec.json.Decoder(msgspec.Raw)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Fields with microseconds since the epoch, in every struct that is shown. By name: their type is `int`,
# like that of offsets and counts.
TIME_FIELDS = frozenset(
    {
        "time",
        "since",
        "started",
        "appended",
        "failed",
        "due",
        "next_attempt",
        "expires",
        "created",
        "next_start",
    }
)


JSON = b"application/json"


class Response(msgspec.Struct, frozen=True, gc=False):
    """A complete answer."""

    status: int
    body: bytes
    media: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(
    value: Any,
    *,
    status: int = 200,
    media: str = "application/json",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    """Return an answer whose body is `value` as JSON."""
    return Response(status, _encoder.encode(value), media.encode(), headers)


async def json_list(name: str, members: Iterable[Any], slices: Slices, **others: Any) -> Response:
    """Return an answer with the body `{name: [members], **others}`, encoded in slices for thousands of members."""
    found = [_encoder.encode(member) async for member in slices.over(members)]
    after = b"".join(
        b",%s:%s" % (_encoder.encode(other), _encoder.encode(value))
        for other, value in others.items()
    )
    return Response(200, b'{"%s":[%s]%s}' % (name.encode(), b",".join(found), after))


async def json_document(value: Mapping[str, Any], large: str, slices: Slices) -> Response:
    """An answer whose body is `value`, whose object `large` may have thousands of members."""
    members = [_member(*each) async for each in slices.over(value[large].items())]
    fields = (
        b"%s:{%s}" % (_encoder.encode(name), b",".join(members))
        if name == large
        else _member(name, field)
        for name, field in value.items()
    )
    return Response(200, b"{%s}" % b",".join(fields))


def _member(name: str, value: Any) -> bytes:
    return b"%s:%s" % (_encoder.encode(name), _encoder.encode(value))


def rfc3339(micros: int) -> str:
    """Return a time as text, in UTC; "" for 0, which means never or unknown."""
    if micros <= 0:
        return ""
    try:
        moment = _EPOCH + timedelta(microseconds=micros)
    # Stored values may come from foreign sources: one beyond the year 9999 must not make a whole
    # list unreadable.
    except OverflowError:
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def view(value: Any) -> Any:
    """Convert a value to plain JSON data: structs to objects, positions and times to text."""
    if isinstance(value, Position):
        return str(value)
    if isinstance(value, Cause):
        return {"kind": value.kind, "message": value.message, "traceback": value.traceback}
    if isinstance(value, msgspec.Struct):
        return {
            name: rfc3339(field)
            if name in TIME_FIELDS and isinstance(field := getattr(value, name), int)
            else view(getattr(value, name))
            for name in value.__struct_fields__
        }
    if isinstance(value, bytes):
        return payload(value)
    if isinstance(value, dict):
        return {str(key): view(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [view(member) for member in value]
    return value


def payload(value: bytes) -> dict[str, Any]:
    """Return a payload under the name of its form: `value`, `value_text` or `value_base64`."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        # Before JSON is tried: `msgspec.Raw` skips strings without a check, and invalid UTF-8 in
        # one would make the whole answer invalid.
        return {"value_base64": base64.b64encode(value).decode()}
    try:
        return {"value": _raw.decode(value)}
    except (msgspec.DecodeError, RecursionError):
        return {"value_text": text}


def event_view(event: Event) -> dict[str, Any]:
    """Return an event without its position; fields that it does not have are left out."""
    shown: dict[str, Any] = {}
    if event.key is not None:
        shown["key"] = event.key
    if event.time is not None:
        shown["time"] = rfc3339(event.time)
    if event.id is not None:
        shown["id"] = event.id
    if event.type is not None:
        shown["type"] = event.type
    if event.source is not None:
        shown["source"] = event.source
    if event.headers:
        shown["headers"] = event.headers
    shown |= payload(event.value)
    return shown


def dead_view(dead: DeadEvent) -> dict[str, Any]:
    """Return a dead letter with its event."""
    return {
        "function": dead.function,
        "position": str(dead.position),
        "cause": view(dead.cause),
        "attempts": dead.attempts,
        "appended": rfc3339(dead.appended),
        "failed": rfc3339(dead.failed),
        "hops": dead.hops,
        "origin": dead.origin,
        "event": event_view(decode_event(dead.event)),
        **_edited_view(dead),
    }


def _edited_view(dead: DeadEvent) -> dict[str, Any]:
    """Return the edits of operators and the original event; nothing where there are no edits."""
    if not dead.edits:
        return {}
    return {"edits": view(dead.edits), "original": event_view(decode_event(dead.original))}


def published_view(found: PublishReceipt) -> dict[str, Any]:
    """Return the result of a publish: the position of each event, and counts of those without one."""
    return {
        "positions": [None if each is None else str(each) for each in found.positions],
        "duplicates": found.duplicates,
        "delayed": found.later,
    }
