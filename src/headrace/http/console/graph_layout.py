"""Layout of a graph: places of nodes, and points of long lines. Pure: names, edges -> places.

A node stands one column to the right of the farthest node that leads to it. A line that passes columns
is led through a gap in each of them, so that it never runs beneath a node it has nothing to do with;
nodes and gaps are ordered by what they are joined to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.model.work_steps import Steps

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 166, 42, 84, 20, 12
GAP_HEIGHT: Final = 12
SWEEPS: Final = 4
MAX_PASSED: Final = 2_000
"""Columns that all lines together go through."""
Edge = tuple[str, str]
Gap = tuple[str, str, int]
"""A line's way through a column: where from, where to, which column."""


@dataclass(frozen=True)
class Layout:
    """Upper left corners of nodes, middles of gaps, and the size of the whole."""

    nodes: dict[str, tuple[int, int]]
    ways: dict[Edge, list[tuple[int, int]]]
    back: frozenset[Edge]
    width: int
    height: int


def layout(names: Sequence[str], edges: Iterable[Edge]) -> Steps[Layout | None]:
    """Places for every name; `ways` has an entry for each edge that passes columns.

    Takes steps, so that others have their turn in between; comes to None where more lines pass columns than
    anybody can follow.
    """
    known = set(names)
    edges = sorted({edge for edge in edges if edge[0] in known and edge[1] in known})
    columns = columns_of(names, edges)
    back = frozenset(edge for edge in edges if columns[edge[0]] >= columns[edge[1]])
    onward = [edge for edge in edges if edge not in back]
    if sum(columns[target] - columns[source] for source, target in onward) > MAX_PASSED:
        return None
    yield
    ordered, joined = yield from _ordered(names, onward, columns)
    middles = yield from _middles(ordered, joined)
    x = {
        each: MARGIN + number * (WIDTH + GAP_X)
        for number, column in enumerate(ordered)
        for each in column
    }
    nodes = {
        each: (x[each], middles[each] - HEIGHT // 2) for each in middles if isinstance(each, str)
    }
    ways: defaultdict[Edge, list[tuple[int, int]]] = defaultdict(list)
    for column in ordered:
        for each in column:
            if not isinstance(each, str):
                ways[each[0], each[1]].append((x[each], middles[each]))
    return Layout(
        nodes,
        dict(ways),
        back,
        width=2 * MARGIN + len(ordered) * (WIDTH + GAP_X) - GAP_X,
        height=max(y for _, y in nodes.values()) + HEIGHT + MARGIN,
    )


def columns_of(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Each node's column: the longest way to it, where the edges that close a loop are left out."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        following[source].append(target)
    finished: list[str] = []
    closing: set[Edge] = set()
    state: dict[str, int] = {}
    for start in names:
        # Depth first, without recursion: 1 is on the way, 2 is finished.
        stack = [start]
        while stack:
            here = stack[-1]
            if state.get(here, 0) == 0:
                state[here] = 1
                for each in following[here]:
                    if state.get(each, 0) == 1:
                        closing.add((here, each))
                    elif each not in state:
                        stack.append(each)
            else:
                stack.pop()
                if state[here] == 1:
                    state[here] = 2
                    finished.append(here)
    column = dict.fromkeys(names, 0)
    for here in reversed(finished):
        for each in following[here]:
            if (here, each) not in closing:
                column[each] = max(column[each], column[here] + 1)
    return column


def _ordered(
    names: Sequence[str], edges: Sequence[Edge], columns: dict[str, int]
) -> Steps[tuple[list[list[str | Gap]], dict[str | Gap, list[str | Gap]]]]:
    """Return the nodes of each column, from above, and the neighbours of each on its left."""
    found: list[list[str | Gap]] = [[] for _ in range(max(columns.values()) + 1)]
    for name in names:
        found[columns[name]].append(name)
    left: defaultdict[str | Gap, list[str | Gap]] = defaultdict(list)
    right: defaultdict[str | Gap, list[str | Gap]] = defaultdict(list)
    for source, target in edges:
        last: str | Gap = source
        for number in range(columns[source] + 1, columns[target]):
            gap: Gap = (source, target, number)
            found[number].append(gap)
            left[gap].append(last)
            right[last].append(gap)
            last = gap
        left[target].append(last)
        right[last].append(target)
    place = {each: at for column in found for at, each in enumerate(column)}
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        joined = left if forth else right
        for column in found if forth else reversed(found):
            column.sort(key=lambda each: (_mean(joined, each, place), place[each]))
            place.update({each: at for at, each in enumerate(column)})
            yield
    return found, left


def _mean(
    joined: dict[str | Gap, list[str | Gap]], each: str | Gap, place: dict[str | Gap, int]
) -> float:
    others = joined.get(each, ())
    return sum(place[other] for other in others) / len(others) if others else place[each]


def _middles(
    ordered: Sequence[Sequence[str | Gap]], joined: dict[str | Gap, list[str | Gap]]
) -> Steps[dict[str | Gap, int]]:
    """Return the distance of each node's middle from the top: level with its predecessors, where that is free."""
    middles: dict[str | Gap, int] = {}
    for column in ordered:
        free = MARGIN
        for each in column:
            half = HEIGHT // 2 if isinstance(each, str) else GAP_HEIGHT // 2
            others = [middles[other] for other in joined.get(each, ())]
            wished = sum(others) // len(others) if others else 0
            middles[each] = max(free + half, wished)
            free = middles[each] + half + (GAP_Y if isinstance(each, str) else GAP_Y // 2)
        yield
    return middles
