"""Cutting units: nothing lost, nothing doubled, nothing moved."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import chunk, offsets_of

from headrace.delivery.unit import cut, pick, runs
from headrace.model.record import Chunk

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def row(counts: list[int]) -> tuple[Chunk, ...]:
    return tuple(chunk(count, sum(counts[:index])) for index, count in enumerate(counts))


@given(sizes, st.lists(st.integers(0, 45), max_size=5))
def test_cutting_anywhere_gives_back_the_whole(counts: list[int], places: list[int]) -> None:
    chunks, total = row(counts), sum(counts)
    edges = [0, *sorted(min(place, total) for place in places), total]

    pieces = [cut(chunks, low, high) for low, high in itertools.pairwise(edges)]

    assert [place for piece in pieces for place in offsets_of(piece)] == list(range(total))


@given(sizes, st.sets(st.integers(0, 41)))
def test_picking_takes_just_what_was_named(counts: list[int], wanted: set[int]) -> None:
    chosen = sorted(each for each in wanted if each < sum(counts))

    assert offsets_of(pick(row(counts), chosen)) == chosen


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_the_indices_and_do_not_touch(indices: set[int]) -> None:
    found = runs(sorted(indices))

    assert [each for low, high in found for each in range(low, high)] == sorted(indices)
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(found))
