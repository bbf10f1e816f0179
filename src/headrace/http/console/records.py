"""Streams and what is in them: a list, and a page through the records of one. Values -> HTML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from headrace.admin.explain import Explanation
from headrace.http.console.html_parts import (
    code,
    facts,
    listed,
    paragraph,
    preformatted,
    section,
    short,
    size,
    span,
    stacked,
    table,
    to,
    to_event,
    to_function,
    to_stream,
    toned,
    when,
)
from headrace.http.console.page_frame import Sheet
from headrace.model.function import StreamSpec

MAX_SHOWN = 400
GOOD = frozenset({"committed"})
BAD = frozenset({"dead", "parked", "stopped", "retrying"})


@dataclass(frozen=True, kw_only=True)
class Held:
    """A stream, and what each of its partitions holds.

    Attributes:
        extents: By partition: the oldest offset, the next one, and the bytes between.
        readers: The functions that listen to it.
    """

    spec: StreamSpec
    extents: Sequence[tuple[int, int, int]]
    readers: Sequence[str]

    @property
    def records(self) -> int:
        """Return the number of events."""
        return sum(high - low for low, high, _ in self.extents)

    @property
    def bytes(self) -> int:
        """Return the events' size in bytes."""
        return sum(weight for _, _, weight in self.extents)


@dataclass(frozen=True, kw_only=True)
class Browsed:
    """A page of a stream's records, as JSON data, oldest first.

    Attributes:
        partition: The only one that is looked at, or None for all.
        older, newer: The places where the pages before and after begin; "" where there is none.
    """

    held: Held
    partition: int | None
    records: Sequence[Mapping[str, Any]]
    older: str = ""
    newer: str = ""


def list_page(streams: Sequence[Held]) -> Sheet:
    """Every stream, the authors' first."""
    pieces = itertools.chain(
        section(
            "Streams",
            _list(streams, own=False),
            'None is declared: `app.stream("orders")` declares one.',
        ),
        section("Streams that triggers write for their functions", _list(streams, own=True)),
    )
    return Sheet(way="Streams", title="Streams", pieces=pieces)


def _list(streams: Sequence[Held], *, own: bool) -> Iterator[Markup]:
    rows = (
        (
            to_stream(each.spec.name),
            each.spec.owner,
            f"{each.spec.partitions}",
            f"{each.records:,}",
            size(each.bytes),
            _kept(each.spec),
            listed(to_function(name) for name in each.readers) or "-",
        )
        for each in streams
        if each.spec.name.startswith("_") == own
    )
    heads = ("stream", "?owner", "#?partitions", "#records", "#bytes", "?keeps", "~read by")
    return table(heads, rows)


def _kept(spec: StreamSpec) -> str:
    words = ["the latest of each key"] if spec.cleanup == "compact" else []
    if spec.retention_age is not None:
        words.append(span(spec.retention_age))
    if spec.retention_bytes is not None:
        words.append(size(spec.retention_bytes))
    return " or ".join(words) or "all"


def browse_page(shown: Browsed) -> Sheet:
    """A stream, its partitions, and a page of its records."""
    spec = shown.held.spec
    address = f"/console/streams/{quote(spec.name, safe='')}"
    chosen = "" if shown.partition is None else f"&partition={shown.partition}"
    ways = [
        to(f"{address}?from=earliest{chosen}", "from the beginning"),
        to(f"{address}?cursor={shown.older}{chosen}", "older") if shown.older else "",
        to(f"{address}?cursor={shown.newer}{chosen}", "newer") if shown.newer else "",
        to(f"{address}?{chosen[1:]}" if chosen else address, "the latest"),
        to(address, "all partitions") if shown.partition is not None else "",
    ]
    rows = (
        (
            to_event(str(record["position"])),
            str(record.get("appended", ""))[:19].replace("T", " "),
            code(str(record["key"])) if "key" in record else "",
            code(short(flat(record), MAX_SHOWN)),
        )
        for record in reversed(shown.records)
    )
    records = table(("event", "?appended", "key", "~value"), rows)
    partitions = table(
        ("partition", "#oldest", "#next", "#records", "#bytes"),
        (
            (
                to(f"{address}?partition={number}", f"{number}"),
                f"{low:,}",
                f"{high:,}",
                f"{high - low:,}",
                size(weight),
            )
            for number, (low, high, weight) in enumerate(shown.held.extents[:64])
        ),
    )
    about = facts(
        {
            "owner": spec.owner,
            "keeps": _kept(spec),
            "values": spec.codec,
            "read by": listed(to_function(name) for name in shown.held.readers),
        }
    )
    where = "" if shown.partition is None else f", partition {shown.partition}"
    pieces = itertools.chain(
        [Markup("<section>{}</section>{}").format(about, paragraph(*ways))],
        section("Records", records, "No record is here (yet, or any more)."),
        section("Partitions", partitions),
    )
    return Sheet(way="Streams", title=f"{spec.name}{where}", pieces=pieces)


def event_page(record: Mapping[str, Any], found: Explanation) -> Sheet:
    """One event: what it holds, and what each function has made of it."""
    place = f"{found.stream}/{found.partition}/{found.offset}"
    headers = record.get("headers") or {}
    about = facts(
        {
            "stream": to_stream(found.stream),
            "key": code(found.key) if found.key is not None else "",
            "id": code(found.id),
            "type": str(record.get("type", "")),
            "source": str(record.get("source", "")),
            "happened": str(record.get("time", "")),
            "appended": when(found.appended),
            "hops": f"{found.hops}" if found.hops else "",
            "origin": to_event(found.origin) if found.origin else "",
            "headers": Markup("<br>").join(
                code(f"{name}: {text}") for name, text in headers.items()
            ),
        }
    )
    rows = (
        (
            to_function(each.function),
            toned(
                each.status,
                "good" if each.status in GOOD else "bad" if each.status in BAD else "soft",
            ),
            each.blocked_by,
            f"{each.attempts}",
            when(each.next_attempt),
            stacked(short(each.cause), each.policy),
        )
        for each in found.functions
    )
    functions = table(
        ("function", "status", "~waits for", "#attempts", "next attempt", "~cause, policy"), rows
    )
    pieces = itertools.chain(
        [Markup("<section>{}</section>").format(about)],
        section("Value", [payload(record)]),
        section("Functions", functions, "No function reads this stream."),
    )
    return Sheet(way="Streams", title=f"Event {place}", pieces=pieces)


def payload(record: Mapping[str, Any]) -> Markup:
    """Return an event's value, readable: JSON indented, text as it is."""
    if "value" in record:
        pretty = msgspec.json.format(msgspec.json.encode(record["value"]), indent=2)
        return preformatted(pretty.decode())
    return preformatted(flat(record))


def flat(record: Mapping[str, Any]) -> str:
    """Return an event's value on one line."""
    if "value" in record:
        return msgspec.json.encode(record["value"]).decode()
    if "value_text" in record:
        return str(record["value_text"])
    return f"base64:{record.get('value_base64', '')}"
