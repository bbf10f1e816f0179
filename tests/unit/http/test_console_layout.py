"""A picture's layout: whatever the graph, nothing lies on anything else and no line passes beneath a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.http.console.graph_layout import HEIGHT, MARGIN, WIDTH, Edge, Layout, columns_of
from headrace.http.console.graph_layout import layout as steps_of
from headrace.model.work_steps import at_once

NAMES = [f"n{number}" for number in range(9)]
EDGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20)


def layout(names: Sequence[str], edges: Iterable[Edge]) -> Layout:
    found = at_once(steps_of(names, edges))
    assert found is not None
    return found


@given(EDGES)
def test_no_two_nodes_overlap_and_all_are_within_the_picture(edges: list[tuple[str, str]]) -> None:
    found = layout(NAMES, edges)
    assert set(found.nodes) == set(NAMES)
    for (x1, y1), (x2, y2) in combinations(found.nodes.values(), 2):
        assert x1 != x2 or abs(y1 - y2) >= HEIGHT
    for x, y in found.nodes.values():
        assert MARGIN <= x <= found.width - WIDTH
        assert MARGIN <= y <= found.height - HEIGHT


@given(EDGES)
def test_a_line_that_passes_columns_passes_between_their_nodes(
    edges: list[tuple[str, str]],
) -> None:
    found = layout(NAMES, edges)
    for way in found.ways.values():
        for x, middle in way:
            assert not any(
                left == x and top <= middle <= top + HEIGHT for left, top in found.nodes.values()
            )


@given(EDGES)
def test_lines_go_to_the_right_but_those_that_close_a_loop(edges: list[tuple[str, str]]) -> None:
    found = layout(NAMES, edges)
    for source, target in edges:
        right = found.nodes[target][0] > found.nodes[source][0]
        assert right != ((source, target) in found.back)


def test_a_chain_has_a_column_for_each_and_a_short_cut_goes_through_gaps() -> None:
    edges = [("n0", "n1"), ("n1", "n2"), ("n2", "n3"), ("n0", "n3")]
    assert [columns_of(NAMES, edges)[name] for name in NAMES[:4]] == [0, 1, 2, 3]
    assert len(layout(NAMES[:4], edges).ways["n0", "n3"]) == 2


@pytest.mark.parametrize("edges", [[("n0", "n0")], [("n0", "n1"), ("n1", "n0")]])
def test_a_loop_ends(edges: list[tuple[str, str]]) -> None:
    assert layout(NAMES, edges).back


def test_lines_that_nobody_can_follow_are_not_laid_out() -> None:
    names = [f"n{number}" for number in range(150)]
    # Each of them passes all that stand between: to place their ways took minutes.
    assert at_once(steps_of(names, combinations(names, 2))) is None
    assert at_once(steps_of(names, pairwise(names))) is not None
