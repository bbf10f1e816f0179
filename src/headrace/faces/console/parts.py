"""The pieces that pages are made of: tables, facts, links, times and sizes. Values -> HTML; all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from urllib.parse import quote

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def section(title: str, body: str, empty: str = "") -> str:
    """A part of a page under a heading; with nothing to show the sentence `empty`, or nothing at all."""
    if not body and not empty:
        return ""
    return f"<h2>{escape(title)}</h2><section>{body or f'<p>{escape(empty)}</p>'}</section>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; "" without rows.

    A head that starts with `#` holds numbers, with `~` long text that may wrap, and with `?` what a
    narrow screen leaves out.
    """
    marks = [_mark(head) for head in heads]
    # On a narrow screen there is no line of heads: a number says beside itself what it counts.
    told = [
        f'{mark} data-head="{escape(head.lstrip("#~?"))}"' if "#" in head else mark
        for mark, head in zip(marks, heads, strict=True)
    ]
    lines = [
        "<tr>"
        + "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(told, row, strict=True))
        + "</tr>"
        for row in rows
    ]
    if not lines:
        return ""
    top = "".join(
        f"<th{mark}>{escape(head.lstrip('#~?'))}</th>"
        for mark, head in zip(marks, heads, strict=True)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _mark(head: str) -> str:
    kinds = {"#": "n", "~": "wide", "?": "more"}
    found = [kinds[sign] for sign in head[: len(head) - len(head.lstrip("#~?"))]]
    return f' class="{" ".join(found)}"' if found else ""


def facts(found: Mapping[str, str]) -> str:
    """Names and what they are, HTML already; what is empty is left out."""
    rows = [f"<dt>{escape(name)}</dt><dd>{cell}</dd>" for name, cell in found.items() if cell]
    return f"<dl>{''.join(rows)}</dl>"


def to(address: str, text: str) -> str:
    """A link to a page of the console."""
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def to_function(name: str) -> str:
    """A link to a function's page."""
    return to(f"/console/functions/{quote(name, safe='')}", name)


def to_stream(name: str) -> str:
    """A link to a stream's records."""
    return to(f"/console/streams/{quote(name, safe='')}", name)


def to_partition(stream: str, partition: int) -> str:
    """A link to the records of one partition."""
    return to(
        f"/console/streams/{quote(stream, safe='')}?partition={partition}", f"{stream}/{partition}"
    )


def to_event(position: str) -> str:
    """A link to an event's page, by `stream/partition/offset`."""
    if position.count("/") < 2:
        return escape(position)
    stream, partition, offset = position.rsplit("/", 2)
    place = "/".join(quote(part, safe="") for part in (stream, partition, offset))
    return f"<code>{to(f'/console/events/{place}', position)}</code>"


def code(text: str) -> str:
    """A command, or what a user wrote."""
    return f"<code>{escape(text)}</code>"


def toned(text: str, tone: str) -> str:
    """Text that is `bad`, `good` or `soft`."""
    return f'<span class="{tone}">{escape(text)}</span>'


def stacked(upper: str, lower: str) -> str:
    """Two lines of one cell, HTML already; the second is soft."""
    if not upper:
        return f"<span class=soft>{lower}</span>"
    return f"{upper}<br><span class=soft>{lower}</span>" if lower else upper


def when(micros: int | None) -> str:
    """A time in UTC, to the second; "-" where there is none."""
    if not micros or micros < 0:
        return "-"
    try:
        return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return "-"


def short(text: str, most: int = 160) -> str:
    """Text on one line, cut where it is long, escaped."""
    flat = " ".join(text.split())
    return escape(flat if len(flat) <= most else f"{flat[: most - 1]}…")


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 1024:
        return f"{count} B"
    for unit, scale in (("KiB", 10), ("MiB", 20), ("GiB", 30)):
        if count < 1 << (scale + 10) or unit == "GiB":
            return f"{count / (1 << scale):,.1f} {unit}"
    raise AssertionError


def span(seconds: float) -> str:
    """A time span in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def rate(per_second: float) -> str:
    """Events a second."""
    if per_second <= 0:
        return ""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"
