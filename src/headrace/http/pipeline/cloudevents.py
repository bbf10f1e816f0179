"""CloudEvents 1.0 over HTTP, in binary, structured and batched mode -> events.

`source`, `type` and `time` become fields of the event, and `source#id` its id (a `#` in the source is
percent-encoded). `id`, `subject`, `dataschema`, `datacontenttype` and every extension become headers `ce-NAME`.
The key is the `partitionkey` extension, else the subject. Refuses other versions of the specification and
events without the required attributes.
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
# CloudEvents 1.0, section "Attribute Naming Convention": lower-case letters and digits only.
_NAME = re.compile(r"^[a-z0-9]+$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


class ValueFormat(NamedTuple):
    """The values that a stream accepts.

    Attributes:
        check: Raises `Invalid` where bytes are not such a value.
        nothing: The value of an event without data, which a CloudEvent need not have.
    """

    check: Callable[[bytes], None]
    nothing: bytes


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request's headers carry the attributes (binary mode)."""
    # A required attribute, so its header separates binary mode from any other request (HTTP binding,
    # section 3.1).
    return b"ce-specversion" in headers


def binary(
    headers: Mapping[bytes, bytes], body: bytes, key: str | None, values: ValueFormat
) -> Event:
    """Read an event whose attributes are headers and whose data is the body; an empty body means no data.

    Raises:
        Invalid: It is not a CloudEvent, or its data not what the stream holds.
    """
    attributes: dict[str, str] = {}
    for name, raw in headers.items():
        if name.startswith(b"ce-"):
            try:
                attributes[name[3:].decode("latin-1")] = _header_text(raw)
            except UnicodeDecodeError as error:
                raise Invalid(
                    f"the header `{name.decode('latin-1')}` is not percent-encoded UTF-8"
                ) from error
    if media := headers.get(b"content-type"):
        attributes["datacontenttype"] = media.decode("latin-1")
    value = body or values.nothing
    values.check(value)
    return _event(attributes, value, key)


def _header_text(raw: bytes) -> str:
    """Decode a header's value (HTTP binding, section 3.1.3.2): unquote once, percent-decode once."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = _ESCAPED.sub(r"\1", quoted[1])
    return unquote(text, errors="strict")


def structured(body: bytes, key: str | None, values: ValueFormat) -> Event:
    """Read an event that is one JSON object.

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
        value = values.nothing
    values.check(value)
    return _event(attributes, value, key)


def batch(body: bytes, key: str | None, values: ValueFormat) -> list[Event]:
    """Read a JSON array of events.

    Raises:
        Invalid: One of them is not a CloudEvent; the message names it.
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
            events.append(structured(bytes(raw), key, values))
        except Invalid as error:
            raise Invalid(f"event {number}: {error}") from error
    return events


def _attribute(name: str, raw: msgspec.Raw) -> str:
    # The types of attributes are string, integer and boolean (CloudEvents 1.0, section "Type
    # System"); here every one becomes the text that binary mode would have.
    value: Any = msgspec.json.decode(raw)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise Invalid(f"the attribute `{name}` is neither text, a whole number nor true or false")


def _data(members: Mapping[str, msgspec.Raw], attributes: Mapping[str, str]) -> bytes | None:
    """Return the data; None where there is none."""
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
        # JSON event format, section 3.1: data that is not JSON is carried as a JSON string, and the
        # string's text is the data.
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
    # The "Partitioning" extension; without it the subject is the nearest thing to a key.
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
