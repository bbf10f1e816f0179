"""Filter of the records of a chunk: the trigger's pattern, matched against each event's key and value.

A pattern sees `{"key", "value", "type", "source", "headers", "time"}`, with the value as JSON (AWS Lambda
shows a Kafka record's key and value to its filters under the same names). A value that is not JSON
is shown as text where it is UTF-8, and as null where it is not; one of a msgpack stream as the JSON
it would be. The time of an event that gave none is when it was appended. A pattern over anything else would never match, and is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.record import Chunk
from headrace.patterns.pattern import compile_pattern

SHOWN: Final = ("key", "value", "type", "source", "headers", "time")
_json = msgspec.json.Decoder()


class Selection:
    """A trigger's compiled pattern; called with a chunk, it gives the indices meant."""

    def __init__(self, pattern: dict[str, Any], *, msgpack: Collection[str] = ()) -> None:
        """Compile the pattern.

        Args:
            pattern: As an author wrote it.
            msgpack: The streams whose values are msgpack.

        Raises:
            Invalid: It is not a pattern, or is about what no record has.
        """
        self._pattern = compile_pattern(pattern)
        self._msgpack = msgpack
        for leaf in (leaf for leaves in self._pattern.alternatives for leaf in leaves):
            # It would never match, and a function that never runs gives no hint why.
            if leaf.path.partition(".")[0] not in SHOWN:
                raise Invalid(
                    f"the pattern is about `{leaf.path}`, which no record has; it sees "
                    f"{', '.join(f'`{name}`' for name in SHOWN)}: what is within the value is "
                    f'`{{"value": {{"{leaf.path.partition(".")[0]}": ...}}}}`'
                )

    def __call__(self, chunk: Chunk) -> set[int]:
        """The indices, from 0, of the events of `chunk` that match."""
        # Chosen once per chunk: a chunk is of one stream.
        value_of = _unpacked if chunk.stream in self._msgpack else _value
        return {
            index
            for index, event in enumerate(chunk.events())
            if self._pattern.matches(_shown(event, value_of(event.value), chunk.appended))
        }


def _shown(event: Event, value: Any, appended: int) -> dict[str, Any]:
    return {
        "key": event.key,
        "value": value,
        "type": event.type,
        "source": event.source,
        "headers": event.headers or {},
        "time": event.time_or(appended),
    }


def _value(raw: bytes) -> Any:
    try:
        return _json.decode(raw)
    # Values need not be JSON: a filter on keys or headers must still work.
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _unpacked(raw: bytes) -> Any:
    try:
        # msgpack has keys of any type and times; patterns know JSON's.
        return msgspec.to_builtins(msgspec.msgpack.decode(raw), str_keys=True)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError):
        return None
