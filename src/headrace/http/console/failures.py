"""Dead letters and parked keys, with the command that helps. Values -> HTML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from headrace.delivery.parked import ParkedKey
from headrace.http.console.html_parts import (
    NOTHING,
    code,
    facts,
    paragraph,
    preformatted,
    section,
    short,
    table,
    to,
    to_event,
    to_function,
    to_partition,
    to_stream,
    when,
)
from headrace.http.console.page_frame import Sheet
from headrace.http.console.records import payload
from headrace.model.effects import DeadEvent


def page(dead: Sequence[DeadEvent], parked: Sequence[ParkedKey], *, after: str) -> Sheet:
    """Parked keys, and a page of dead letters; `after` leads to the next."""
    return Sheet(way="Failures", title="Failures", pieces=_pieces(dead, parked, after))


def _pieces(dead: Sequence[DeadEvent], parked: Sequence[ParkedKey], after: str) -> Iterator[Markup]:
    more = paragraph(to(f"/console/failures?after={quote(after)}", "more")) if after else NOTHING
    yield from section("Parked keys", parked_table(parked), "Nothing is parked.")
    letters = itertools.chain(dead_table(dead), [more])
    yield from section("Dead letters", letters, "There are no dead letters.")


def letter_page(dead: DeadEvent, event: Mapping[str, Any]) -> Sheet:
    """One dead letter whole; `event` is what it held, as JSON data."""
    name, place = dead.function, str(dead.position)
    found = facts(
        {
            "function": to_function(name),
            "event": to_event(place),
            "stream": to_stream(dead.position.stream),
            "attempts": f"{dead.attempts}",
            "appended": when(dead.appended),
            "failed": when(dead.failed),
            "origin": dead.origin,
            "cause": f"{dead.cause.kind}: {dead.cause.message}",
            "edited": "; ".join(f"{when(each.time)} by {each.by}" for each in dead.edits),
            "change its value": code(f"headrace dead edit {name} {place}"),
            "hand it over again": code(f"headrace dead redrive {name} {place}"),
            "delete it": code(f"headrace dead discard {name} {place}"),
        }
    )
    trace = dead.cause.traceback.rstrip()
    pieces = itertools.chain(
        [Markup("<section>{}</section>").format(found)],
        section("What it held", [payload(event)]),
        section("Traceback", [preformatted(trace)] if trace else []),
    )
    return Sheet(way="Failures", title=f"Dead letter {place}", pieces=pieces)


def dead_table(dead: Sequence[DeadEvent]) -> Iterator[Markup]:
    """Dead letters, each with its page."""
    rows = (
        (
            to_function(letter.function),
            to(f"/console/dead/{letter.function}/{letter.position}", str(letter.position)),
            f"{letter.attempts}",
            when(letter.failed),
            short(f"{letter.cause.kind}: {letter.cause.message}"),
            code(f"headrace dead redrive {letter.function} {letter.position}"),
        )
        for letter in dead
    )
    return table(("function", "event", "#attempts", "?failed", "~cause", "?try again"), rows)


def parked_table(parked: Sequence[ParkedKey]) -> Iterator[Markup]:
    """Parked keys, and how each goes on."""
    rows = (
        (
            to_function(one.function),
            to_partition(one.stream, one.partition),
            _waits(one),
            f"{one.events:,}",
            one.status,
            when(one.since),
            short(one.cause),
            code(f"headrace parked redrive {one.function} {_shell(one.key)}"),
        )
        for one in parked
    )
    heads = (
        "function",
        "partition",
        "key, or event",
        "#events",
        "?status",
        "?since",
        "~cause",
        "?let go on",
    )
    return table(heads, rows)


def _waits(one: ParkedKey) -> Markup:
    """The key that waits; an event without a key waits by itself."""
    if one.key is not None:
        return code(one.key)
    if not one.lane:
        return Markup("all")
    offset = int.from_bytes(bytes.fromhex(one.lane)[-8:], "big")
    return to_event(f"{one.stream}/{one.partition}/{offset}")


def _shell(key: str | None) -> str:
    """A key as one word of a command line."""
    if key is None:
        return "--all"
    plain = key.isascii() and key.replace("-", "a").replace("_", "a").replace(".", "a").isalnum()
    return key if plain and key[0] != "-" else "'" + key.replace("'", "'\\''") + "'"
