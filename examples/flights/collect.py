"""Reads a node's answers over its HTTP door: state, records, dead letters, cold starts.

Payloads are taken byte for byte as the door shows them, so that poison can be compared with what was
planted. Nothing is judged here.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from host import Door

APP = "flights"
PAGE = 1_000


class Record(msgspec.Struct, kw_only=True):
    """An event as the door shows it, its payload left as it is."""

    key: str | None = None
    position: str = ""
    appended: str = ""
    value: msgspec.Raw = msgspec.Raw()
    value_text: str | None = None
    value_base64: str | None = None

    def raw(self) -> bytes:
        """The payload, byte for byte."""
        if self.value_text is not None:
            return self.value_text.encode()
        if self.value_base64 is not None:
            return base64.b64decode(self.value_base64)
        return bytes(self.value)


class Cause(msgspec.Struct):
    """Why an event was given up."""

    kind: str
    message: str = ""


class DeadLetter(msgspec.Struct):
    """An event that was given up, as the door shows it."""

    function: str
    position: str
    cause: Cause
    attempts: int
    event: Record


class _Records(msgspec.Struct):
    records: list[Record]
    cursor: str


class _Dead(msgspec.Struct):
    dead: list[DeadLetter]


def records(door: Door, stream: str) -> Iterator[Record]:
    """Every record of a stream."""
    cursor = ""
    while True:
        path = f"/-/v1/streams/{quote(stream)}/records?limit={PAGE}"
        page = msgspec.json.decode(
            door.text(path + (f"&cursor={quote(cursor)}" if cursor else "&from=earliest")),
            type=_Records,
        )
        if not page.records:
            return
        yield from page.records
        cursor = page.cursor


def rows(door: Door, stream: str) -> list[dict[str, Any]]:
    """Every record of a stream, its JSON opened."""
    return [msgspec.json.decode(record.raw()) for record in records(door, stream)]


def record_at(door: Door, position: str) -> Record:
    """The one record at `stream/partition/offset`."""
    stream, partition, offset = position.rsplit("/", 2)
    path = f"/-/v1/streams/{quote(stream)}/records?partition={partition}&offset={offset}&limit=1"
    return msgspec.json.decode(door.text(path), type=_Records).records[0]


def dead_letters(door: Door) -> list[DeadLetter]:
    """Every dead letter."""
    found: list[DeadLetter] = []
    after = ""
    while True:
        path = f"/-/v1/dead?limit=100&after={quote(after)}"
        page = msgspec.json.decode(door.text(path), type=_Dead).dead
        if not page:
            return found
        found.extend(page)
        after = f"{page[-1].function}@{page[-1].position}"


def tallies(door: Door, store: str) -> dict[str, dict[str, Any]]:
    """What a store holds."""
    found = door.get(f"/-/v1/state/{APP}/{store}?limit=1000")
    return {row["key"]: row["value"] for row in found["state"]}


def committed_at(door: Door, stream: str, numbers: set[int]) -> dict[int, float]:
    """When the outputs made of the rows `numbers` were committed, in seconds since the epoch."""
    found: dict[int, float] = {}
    for record in records(door, stream):
        number = msgspec.json.decode(record.raw())["row"]
        if number in numbers:
            found[number] = datetime.datetime.fromisoformat(record.appended).timestamp()
    return found


_QUANTILE = re.compile(r'^headrace_cold_start_seconds\{quantile="([^"]+)"\} ([0-9.e+-]+)$', re.M)


def cold_starts(door: Door) -> dict[str, float]:
    """Quantiles of the latest cold starts, in seconds."""
    return {mark: float(value) for mark, value in _QUANTILE.findall(door.text("/metrics"))}


def length(door: Door, stream: str) -> int:
    """How many records a stream holds."""
    records: int = door.get(f"/-/v1/streams/{quote(stream)}")["records"]
    return records
