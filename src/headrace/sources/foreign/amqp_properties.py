"""AMQP properties as they may come: what pamqp refuses to read is read all the same.

Any publisher to a queue chooses a message's properties. pamqp gives up on texts that are no
UTF-8, on times far away and on headers of unknown types, and takes the connection down with it: the
message would be delivered again, for ever, and hold up all behind it. Read here are texts with their
odd bytes escaped, such times as none, and such headers as dropped, which is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from pamqp import decode

from headrace.sources.foreign.feed import HEADERS_DROPPED

TIME_BYTES = 8
LENGTH_BYTES = 4

_encode = msgspec.json.Encoder(decimal_format="number").encode
Decode = Callable[[bytes], tuple[int, Any]]


def be_lenient() -> None:
    """Have pamqp decode so, in this process; safe to call twice."""
    # Replaced in the library's own tables: it has no setting for it, and a subclass would need a
    # copy of its decoder.
    methods: dict[str, Any] = decode.METHODS
    nested: dict[bytes, Any] = decode.TABLE_MAPPING
    methods["shortstr"] = text
    # pamqp has two tables: one for properties, one for values within headers.
    methods["timestamp"] = nested[b"T"] = moment
    methods["table"] = table


def text(raw: bytes) -> tuple[int, str]:
    """A short text; bytes that are not UTF-8 are escaped, so that two of them stay two."""
    end = 1 + raw[0]
    return end, raw[1:end].decode("utf-8", "backslashreplace")


def moment(raw: bytes) -> tuple[int, datetime | None]:
    """A time; None where there is no such date."""
    try:
        return decode.timestamp(raw)
    except (ValueError, OverflowError, OSError):
        return TIME_BYTES, None


def table(raw: bytes) -> tuple[int, Any]:
    """A message's headers; a note that they were dropped where one cannot be read."""
    try:
        return decode.field_table(raw)
    except (ValueError, OverflowError, OSError, RecursionError):
        size = int.from_bytes(raw[:LENGTH_BYTES])
        # The length comes first, so that the rest of the frame can be read although this table
        # cannot.
        return LENGTH_BYTES + size, {HEADERS_DROPPED: f"{size} bytes"}


def header_text(value: object) -> str:
    """A header's value: texts as they are, times as RFC 3339, everything else as JSON."""
    said = _plain(value)
    return said if isinstance(said, str) else _encode(said).decode()


def _plain(value: Any) -> Any:
    match value:
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "replace")
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            # JSON has no such number.
            return str(value)
        case _:
            return value
