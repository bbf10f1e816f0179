"""A deployment as a picture: streams and functions in columns, from left to right. Pure: graph -> SVG.

A node stands one column to the right of the farthest node that leads to it; an edge that would go
back (a loop) is drawn dashed, one that only watches is dotted. No layout library: a topology that people can read has few nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from html import escape

from headrace.topology.graph import Graph

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 40, 72, 22, 14
MAX_NODES = 200


def picture(graph: Graph, notes: Mapping[str, str]) -> str:
    """The SVG; `notes` is a short text under a node's name. "" for what is too large to read."""
    doing = set(graph.functions) | set(graph.forwards)
    names = sorted(graph.named() | doing | set(graph.streams))
    if not names or len(names) > MAX_NODES:
        return ""
    columns = _columns(names, [(edge.source, edge.target) for edge in graph.edges])
    places: dict[str, tuple[int, int]] = {}
    rows: defaultdict[int, int] = defaultdict(int)
    for name in sorted(names, key=lambda known: (columns[known], known)):
        column = columns[name]
        places[name] = (
            MARGIN + column * (WIDTH + GAP_X),
            MARGIN + rows[column] * (HEIGHT + GAP_Y),
        )
        rows[column] += 1
    width = 2 * MARGIN + (max(rows) + 1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(rows.values()) * (HEIGHT + GAP_Y) - GAP_Y
    edges = "".join(
        _edge(
            places[edge.source],
            places[edge.target],
            back=columns[edge.source] >= columns[edge.target],
            watches=edge.kind == "watches",
        )
        for edge in graph.edges
    )
    nodes = "".join(
        _node(name, place, notes.get(name, ""), function=name in doing)
        for name, place in places.items()
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="topology"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="tip"/>'
        f"</marker></defs>{edges}{nodes}</svg>"
    )


def _columns(names: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Each node's column: the longest way to it, loops left out."""
    column = dict.fromkeys(names, 0)
    for _ in names:
        moved = False
        for source, target in edges:
            if column[target] <= column[source] < len(names) - 1 and source != target:
                wanted = column[source] + 1
                if wanted < len(names) and not _leads(target, source, edges):
                    column[target] = wanted
                    moved = True
        if not moved:
            break
    return column


def _leads(start: str, goal: str, edges: list[tuple[str, str]]) -> bool:
    """Whether there is a way from `start` to `goal`."""
    seen, open_ones = {start}, [start]
    while open_ones:
        here = open_ones.pop()
        for source, target in edges:
            if source == here and target not in seen:
                if target == goal:
                    return True
                seen.add(target)
                open_ones.append(target)
    return False


def _node(name: str, place: tuple[int, int], note: str, *, function: bool) -> str:
    x, y = place
    kind, radius = ("function", 6) if function else ("stream", HEIGHT // 2)
    shown = name if len(name) <= 24 else f"{name[:23]}…"
    return (
        f'<g class="{kind}"><title>{escape(name)}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + 17}">{escape(shown)}</text>'
        f'<text x="{x + WIDTH // 2}" y="{y + 32}" class="note">{escape(note)}</text></g>'
    )


def _edge(source: tuple[int, int], target: tuple[int, int], *, back: bool, watches: bool) -> str:
    x1, y1 = source[0] + WIDTH, source[1] + HEIGHT // 2
    x2, y2 = target[0], target[1] + HEIGHT // 2
    bend = max((x2 - x1) // 2, 36)
    dashed = ' class="back"' if back else ' class="watch"' if watches else ""
    return (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" '
        f'marker-end="url(#tip)"{dashed}/>'
    )
