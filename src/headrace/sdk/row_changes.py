"""Decoders of sources with `changes=`: row changes, as a table's events have them.

A record that cannot be opened fails when its value is asked for, like any that is of the wrong type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from headrace.model.errors import Invalid
from headrace.model.function import FunctionSpec
from headrace.model.triggers.debezium import open_envelope, record_key, row_change
from headrace.sdk.declaration_checks import coder_of
from headrace.sdk.event import Event, Origin
from headrace.sdk.handler_signature import HandlerSignature


class ChangeReader:
    """Opens one stream's records. Stateless.

    Args:
        decode: Opens the JSON of a change as the handler's type.
    """

    __slots__ = ("_decode",)

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode

    def __call__(self, raw: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """The change as the handler's type.

        Raises:
            Invalid: It is none of Debezium's records, or not about a row.
        """
        envelope = open_envelope(raw, headers)
        if isinstance(envelope, str):
            raise Invalid(f"the record is not about a row (`{envelope}`)")
        return self._decode(row_change(envelope))

    def adopt(self, events: Sequence[Event[Any]]) -> None:
        """Let these events be opened so, and have the keys that a table's events have."""
        for event in events:
            origin: Origin = event._origin
            event.key = record_key(event.key)
            event._origin = Origin(
                origin.chunk, origin.base, partial(self.__call__, headers=event._headers)
            )


def change_readers(
    spec: FunctionSpec, shape: HandlerSignature, where: str
) -> dict[str, Callable[[bytes], Any]]:
    """Decoders of what a function reads, if it is row changes; else none.

    Raises:
        Misuse: The annotation cannot be decoded.
    """
    if not spec.change_streams:
        return {}
    reader = ChangeReader(coder_of("json", shape.value, where).decode)
    return dict.fromkeys(spec.change_streams, reader)
