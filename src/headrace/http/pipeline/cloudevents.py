"""CloudEvents 1.0 over HTTP: binary, structured and batched mode, into our own events.

`source`, `type` and `time` have their places, `source#id` is the event's id (a `#` of the source is
percent-encoded); `id`, `subject`,
`dataschema`, `datacontenttype` and every extension travel as headers `ce-NAME`. The `partitionkey` extension is the key, else the
subject. Refuses other versions of the specification and events without the required attributes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from headrace.http.pipeline.event_times import parse_time
from headrace.model.codec import validate_json
from headrace.model.errors import Invalid, TooLarge
from headrace.model.event import Event, fenced
from headrace.model.policy import MAX_BATCH

_REQUIRED = ("id", "source", "type")
_PLACED = frozenset({"specversion", "id", "source", "type", "time", "data", "data_base64"})
_NAME = re.compile(r"^[a-z0-9]+$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


class Holds(NamedTuple):
    """What values a stream holds.

    Attributes:
        check: Passes where bytes are such a value; raises `Invalid` where not.
        nothing: What stands for no value: a CloudEvent need not have data.
    """

    check: Callable[[bytes], None]
    nothing: bytes


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request's headers carry the attributes."""
    return b"ce-specversion" in headers


def binary(headers: Mapping[bytes, bytes], body: bytes, key: str | None, holds: Holds) -> Event:
    """An event whose attributes are headers and whose data is the body; an empty body is not data.

    Raises:
        Invalid: It is not a CloudEvent, or its data not what the stream holds.
    """
    attributes: dict[str, str] = {}
    for name, raw in headers.items():
        if name.startswith(b"ce-"):
            try:
                attributes[name[3:].decode("latin-1")] = _meant(raw)
            except UnicodeDecodeError as error:
                raise Invalid(
                    f"the header `{name.decode('latin-1')}` is not percent-encoded UTF-8"
                ) from error
    if media := headers.get(b"content-type"):
        attributes["datacontenttype"] = media.decode("latin-1")
    value = body or holds.nothing
    holds.check(value)
    return _event(attributes, value, key)


def _meant(raw: bytes) -> str:
    """What a header says (HTTP binding, section 3.1.3.2): unquoted once, percent-decoded once.

    Clients that encode nothing write characters as UTF-8, or as Latin-1 as older HTTP did.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = _ESCAPED.sub(r"\1", quoted[1])
    return unquote(text, errors="strict")


def structured(body: bytes, key: str | None, holds: Holds) -> Event:
    """An event that is one JSON object.

    Raises:
        Invalid: It is not a CloudEvent, or its data not what the stream holds.
    """
    validate_json(body)
    try:
        members = _object.decode(body)
    except msgspec.DecodeError as error:
        raise Invalid(f"a CloudEvent is a JSON object: {error}") from error
    attributes = {
        name: _attribute(name, raw)
        for name, raw in members.items()
        if name not in {"data", "data_base64"} and bytes(raw) != b"null"
    }
    value = _data(members, attributes)
    if value is None:
        value = holds.nothing
    holds.check(value)
    return _event(attributes, value, key)


def batch(body: bytes, key: str | None, holds: Holds) -> list[Event]:
    """A JSON array of events.

    Raises:
        Invalid: One of them is not a CloudEvent; the message says which.
        TooLarge: There are more than 10,000.
    """
    validate_json(body)
    try:
        members = _array.decode(body)
    except msgspec.DecodeError as error:
        raise Invalid(f"a CloudEvents batch is a JSON array: {error}") from error
    if len(members) > MAX_BATCH:
        raise TooLarge(f"the batch holds {len(members):,} events; send at most {MAX_BATCH:,}")
    events: list[Event] = []
    for number, raw in enumerate(members):
        try:
            events.append(structured(bytes(raw), key, holds))
        except Invalid as error:
            raise Invalid(f"event {number}: {error}") from error
    return events


def _attribute(name: str, raw: msgspec.Raw) -> str:
    value: Any = msgspec.json.decode(raw)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise Invalid(f"the attribute `{name}` is neither text, a whole number nor true or false")


def _data(members: Mapping[str, msgspec.Raw], attributes: Mapping[str, str]) -> bytes | None:
    """The data; None where there is none."""
    if "data_base64" in members:
        if "data" in members:
            raise Invalid("a CloudEvent has `data` or `data_base64`, not both")
        try:
            return base64.b64decode(
                msgspec.json.decode(members["data_base64"], type=str), validate=True
            )
        except (msgspec.DecodeError, binascii.Error) as error:
            raise Invalid(f"`data_base64` is not base64: {error}") from error
    if "data" not in members:
        return None
    raw = bytes(members["data"])
    media = attributes.get("datacontenttype", "application/json").partition(";")[0].strip().lower()
    if raw.startswith(b'"') and not (media.endswith(("/json", "+json"))):
        # Data of another type than JSON stands in a JSON text; it is the text that is meant.
        return msgspec.json.decode(raw, type=str).encode()
    return raw


def _event(attributes: dict[str, str], value: bytes, key: str | None) -> Event:
    if (version := attributes.get("specversion")) != "1.0":
        raise Invalid(f"`specversion` is {version!r}; this server reads CloudEvents `1.0`")
    for name in _REQUIRED:
        if not attributes.get(name):
            raise Invalid(f"the CloudEvent has no `{name}`; version 1.0 requires it")
    for name in attributes:
        if not _NAME.match(name):
            raise Invalid(f"`{name}` is not an attribute's name; use lower-case letters and digits")
    headers = {f"ce-{name}": text for name, text in attributes.items() if name not in _PLACED}
    headers["ce-id"] = attributes["id"]
    chosen = attributes.get("partitionkey", attributes.get("subject")) if key is None else key
    return Event(
        value=value,
        key=chosen,
        time=parse_time(attributes["time"]) if "time" in attributes else None,
        # Only source and id together are unique: as a dedupe mark, an id alone would drop the
        # event of another source.
        id=f"{fenced(attributes['source'], '#')}#{attributes['id']}",
        headers=headers,
        type=attributes["type"],
        source=attributes["source"],
    )
