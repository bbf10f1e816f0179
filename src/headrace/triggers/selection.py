"""Which records of a chunk a trigger is about: its pattern, put to each event's key and value.

A pattern sees `{"key", "value", "type", "source", "headers", "time"}`, with the value as JSON (AWS Lambda
shows a Kafka record's key and value to its filters under the same names). A value that is not JSON
is shown as text where it is UTF-8, and as null where it is not.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.model.event import Event
from headrace.model.record import Chunk
from headrace.triggers.filters import compile_pattern

_json = msgspec.json.Decoder()


class Selection:
    """A trigger's compiled pattern; called with a chunk, it gives the indices meant."""

    def __init__(self, pattern: dict[str, Any]) -> None:
        self._pattern = compile_pattern(pattern)

    def __call__(self, chunk: Chunk) -> set[int]:
        """The indices, from 0, of the events of `chunk` that match."""
        return {
            index
            for index, event in enumerate(chunk.events())
            if self._pattern.matches(_shown(event))
        }


def _shown(event: Event) -> dict[str, Any]:
    return {
        "key": event.key,
        "value": _value(event.value),
        "type": event.type,
        "source": event.source,
        "headers": event.headers or {},
        "time": event.time,
    }


def _value(raw: bytes) -> Any:
    try:
        return _json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
