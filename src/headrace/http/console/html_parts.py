"""The pieces that pages are made of: tables, facts, links, times and sizes. Values -> HTML.

What is HTML already has the type `Markup`; any other text is escaped where it is put into a page. What may have
thousands of rows comes in pieces, one after the other: others want their turn in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from markupsafe import Markup

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


NOTHING = Markup()


def section(title: str, body: Iterable[Markup], empty: str = "") -> Iterator[Markup]:
    """A part of a page under a heading; with nothing to show the sentence `empty`, or nothing at all."""
    started = False
    for piece in body:
        if piece and not started:
            yield Markup("<h2>{}</h2><section>").format(title)
            started = True
        yield piece
    if not started and empty:
        yield Markup("<h2>{}</h2><section><p>{}</p>").format(title, empty)
    if started or empty:
        yield Markup("</section>")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[Markup]:
    """A table, one row after the other; nothing without rows.

    A head that starts with `#` holds numbers, with `~` long text that may wrap, and with `?` what a
    narrow screen leaves out.
    """
    marks = [_mark(head) for head in heads]
    # On a narrow screen there is no line of heads: a number is followed by what it counts.
    formats = [
        Markup('{} data-head="{}"').format(mark, head.lstrip("#~?")) if "#" in head else mark
        for mark, head in zip(marks, heads, strict=True)
    ]
    cell = Markup("<td{}>{}</td>")
    started = False
    for row in rows:
        if not started:
            yield _heads(heads, marks)
            started = True
        cells = (cell.format(*each) for each in zip(formats, row, strict=True))
        yield Markup("<tr>{}</tr>").format(NOTHING.join(cells))
    if started:
        yield Markup("</tbody></table>")


def _heads(heads: Sequence[str], marks: Sequence[Markup]) -> Markup:
    top = NOTHING.join(
        Markup("<th{}>{}</th>").format(mark, head.lstrip("#~?"))
        for mark, head in zip(marks, heads, strict=True)
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>").format(top)


def _mark(head: str) -> Markup:
    kinds = {"#": "n", "~": "wide", "?": "more"}
    found = [kinds[sign] for sign in head[: len(head) - len(head.lstrip("#~?"))]]
    return Markup(' class="{}"').format(" ".join(found)) if found else NOTHING


def facts(found: Mapping[str, str]) -> Markup:
    """Names and what they are; what is empty is left out."""
    row = Markup("<dt>{}</dt><dd>{}</dd>")
    rows = [row.format(name, cell) for name, cell in found.items() if cell]
    return Markup("<dl>{}</dl>").format(NOTHING.join(rows))


def to(address: str, text: str) -> Markup:
    """A link to a page of the console."""
    return Markup('<a href="{}">{}</a>').format(address, text)


def to_function(name: str) -> Markup:
    """A link to a function's page."""
    return to(f"/console/functions/{quote(name, safe='')}", name)


def to_stream(name: str) -> Markup:
    """A link to a stream's records."""
    return to(f"/console/streams/{quote(name, safe='')}", name)


def to_partition(stream: str, partition: int) -> Markup:
    """A link to the records of one partition."""
    return to(
        f"/console/streams/{quote(stream, safe='')}?partition={partition}", f"{stream}/{partition}"
    )


def to_event(position: str) -> Markup:
    """A link to an event's page, by `stream/partition/offset`."""
    if position.count("/") < 2:
        return Markup.escape(position)
    stream, partition, offset = position.rsplit("/", 2)
    place = "/".join(quote(part, safe="") for part in (stream, partition, offset))
    return code(to(f"/console/events/{place}", position))


def code(text: str) -> Markup:
    """A command, or what a user wrote."""
    return Markup("<code>{}</code>").format(text)


def preformatted(text: str) -> Markup:
    """Text whose lines stay as they are."""
    return Markup("<pre>{}</pre>").format(text)


def paragraph(*links: str) -> Markup:
    """Links to other pages, side by side."""
    return Markup('<p class="ways">{}</p>').format(NOTHING.join(links))


def toned(text: str, tone: str) -> Markup:
    """Text that is `bad`, `good` or `soft`."""
    return Markup('<span class="{}">{}</span>').format(tone, text)


def listed(cells: Iterable[str], between: str = ", ") -> Markup:
    """Several cells as one, with a separator."""
    return Markup(between).join(cells)


def stacked(upper: str, lower: str) -> Markup:
    """Two lines of one cell; the second is soft."""
    soft = Markup("<span class=soft>{}</span>").format(lower)
    if not upper:
        return soft
    return Markup("{}<br>{}").format(upper, soft) if lower else Markup.escape(upper)


def when(micros: int | None) -> str:
    """A time in UTC, to the second; "-" where there is none."""
    if not micros or micros < 0:
        return "-"
    try:
        return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return "-"


def short(text: str, most: int = 160) -> str:
    """Text on one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


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
