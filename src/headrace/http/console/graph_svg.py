"""A deployment as a picture: streams and functions in columns, from left to right. Pure: graph -> SVG.

Where they stand says `layout`. An edge that would go back (a loop) is drawn dashed, one that only
watches is dotted. No library: a topology that people can read has few nodes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from headrace.http.console.graph_layout import HEIGHT, WIDTH, Layout, layout
from headrace.http.console.html_parts import NOTHING, code
from headrace.model.work_steps import Steps
from headrace.topology.graph import HOW_SHOWN, Graph

MAX_NODES, MAX_LINES = 150, 600
MAX_NAME, MAX_NOTE = 22, 27


@dataclass(frozen=True)
class NodeCaption:
    """Text below a node's name, and whether it needs attention."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class EdgeLabel:
    """Texts at the end of a line: the rate above it, the lag below it."""

    above: str
    beneath: str
    bad: bool = False


def picture(
    graph: Graph,
    notes: Mapping[str, NodeCaption],
    lines: Mapping[tuple[str, str], EdgeLabel] | None = None,
) -> Iterator[Markup]:
    """The SVG, a node or a line at a time; a sentence for what is too large to read, nothing for nothing.

    Args:
        graph: What to draw.
        notes: A short text under a node's name.
        lines: What flows along a line, by where it comes from and where it goes.
    """
    doing = set(graph.functions) | set(graph.forwards)
    names = sorted(graph.named() | doing | set(graph.streams))
    if not names:
        return
    kinds = {(edge.source, edge.target): edge.kind for edge in graph.edges}
    known = {(edge.source, edge.target): HOW_SHOWN[edge.how] for edge in graph.edges}
    placing = layout(names, kinds) if len(names) <= MAX_NODES and len(kinds) <= MAX_LINES else None
    found = None if placing is None else (yield from _waited(placing))
    if found is None:
        yield too_many(len(doing), len(names) - len(doing))
        return
    yield Markup(
        '<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="topology"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="tip"/>'
        "</marker></defs>"
    ).format(width=found.width, height=found.height)
    for (source, target), kind in kinds.items():
        points = found.ways.get((source, target), [])
        back = (source, target) in found.back
        mark = "back" if back else "watch" if kind == "watches" else ""
        start, end = found.nodes[source], found.nodes[target]
        yield _line(start, end, points, mark, known[source, target])
        if (flow := (lines or {}).get((source, target))) is not None and not back:
            yield _flow(flow, points[-1] if points else middle_of(start), middle_of(end))
    for name, place in found.nodes.items():
        yield _node(
            name,
            place,
            notes.get(name, NodeCaption("")),
            function=name in graph.functions,
            forward=name in graph.forwards,
        )
    yield Markup("</svg>")


def _waited(placing: Steps[Layout | None]) -> Generator[Markup, None, Layout | None]:
    """Return the layout once its steps are done; yield an empty piece for each step."""
    while True:
        try:
            next(placing)
        except StopIteration as end:
            found: Layout | None = end.value
            return found
        yield NOTHING


def too_many(doing: int, streams: int) -> Markup:
    """Return the notice for a graph that is too large to read."""
    return Markup(
        "<p>{} functions and {} streams are too many to draw, or too much goes between them; {} lists them.</p>"
    ).format(f"{doing:,}", f"{streams:,}", code("headrace map"))


def middle_of(place: tuple[int, int]) -> tuple[int, int]:
    """Return the point where lines meet a node: its left edge, halfway down."""
    return place[0], place[1] + HEIGHT // 2


def _flow(flow: EdgeLabel, start: tuple[int, int], end: tuple[int, int]) -> Markup:
    """Both texts halfway along a line's last bend, where no other line to or from the node is."""
    x, y = (start[0] + WIDTH + end[0]) // 2, (start[1] + end[1]) // 2
    return Markup(
        '<text x="{}" y="{}" class="flow">{}</text><text x="{}" y="{}" class="flow{}">{}</text>'
    ).format(x, y - 5, flow.above, x, y + 13, _bad(flow.bad), flow.beneath)


def _bad(bad: bool) -> str:
    return " bad" if bad else ""


def _node(
    name: str, place: tuple[int, int], note: NodeCaption, *, function: bool, forward: bool
) -> Markup:
    x, y = place
    kind, radius = ("function", 6) if function or forward else ("stream", HEIGHT // 2)
    shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    text = note.text if len(note.text) <= MAX_NOTE else f"{note.text[: MAX_NOTE - 1]}…"
    drawn = Markup(
        '<g class="{kind}"><title>{name}</title>'
        '<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'
        '<text x="{middle}" y="{line}">{shown}</text>'
        '<text x="{middle}" y="{below}" class="note">{text}</text></g>'
    ).format(
        kind=kind + _bad(note.bad),
        name=name,
        x=x,
        y=y,
        width=WIDTH,
        height=HEIGHT,
        radius=radius,
        middle=x + WIDTH // 2,
        line=y + 17,
        below=y + 32,
        shown=shown,
        text=text,
    )
    if forward:
        return drawn
    section = "functions" if function else "streams"
    return Markup('<a href="/console/{}/{}">{}</a>').format(section, quote(name, safe=""), drawn)


def _line(
    start: tuple[int, int],
    end: tuple[int, int],
    through: list[tuple[int, int]],
    mark: str,
    note: str,
) -> Markup:
    x, y = start[0] + WIDTH, start[1] + HEIGHT // 2
    path = [f"M{x} {y}"]
    for left, middle in through:
        path.append(_curve(x, y, left, middle) + f" L{left + WIDTH} {middle}")
        x, y = left + WIDTH, middle
    path.append(_curve(x, y, end[0], end[1] + HEIGHT // 2))
    kind = Markup(' class="{}"').format(mark) if mark else ""
    line = Markup('<path d="{}" marker-end="url(#tip)"{}/>').format(" ".join(path), kind)
    return Markup("<g><title>{}</title>{}</g>").format(note, line) if note else line


def _curve(x1: int, y1: int, x2: int, y2: int) -> str:
    bend = max((x2 - x1) // 2, 36)
    return f"C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
