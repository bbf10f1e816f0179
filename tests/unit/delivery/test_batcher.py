"""The batcher: closes on count, bytes or window, and hands on every event once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import chunk, offsets_of

from headrace.delivery.intake.batcher import Batcher, compact
from headrace.model.record import Chunk


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 4)), max_size=8),
    st.integers(1, 12),
    st.integers(1, 60),
)
def test_every_event_comes_out_once_in_order_and_within_the_limits(
    pieces: list[tuple[int, int, int]], limit: int, size: int
) -> None:
    batcher = Batcher(events=limit, size=size, window=0.0)
    wanted, chunks, first = list[int](), list[Chunk](), 0
    for count, low, off in pieces:
        whole = chunk(count, first)
        window = whole.window(min(low, count - 1), max(count - off, min(low, count - 1) + 1))
        chunks.append(window)
        wanted += range(window.start, window.end)
        first += count
    batcher.add(0, chunks, 0.0)

    found = list[int]()
    while batcher.wait(0.0) is not None:
        batch = batcher.take(0.0)
        count = sum(one.size for one in batch)
        assert 1 <= count <= limit
        heads = len(batch)  # a byte before each array, which is not counted
        assert count == 1 or sum(len(one.body) for one in batch) - heads <= size
        assert all(one.size == one.count for one in batch), "no instance is sent what it needs not"
        found += offsets_of(batch)

    assert found == wanted
    assert len(batcher) == 0


@given(st.integers(1, 80_000), st.integers(0, 79_999), st.integers(1, 80_000))
def test_a_part_of_a_blob_is_a_blob_of_its_own(count: int, low: int, size: int) -> None:
    low = min(low, count - 1)
    high = min(low + size, count)
    whole = chunk(min(count, 300), 0) if count < 70_000 else BIG
    low, high = min(low, whole.count - 1), min(high, whole.count)

    (part,) = compact((whole.window(low, max(high, low + 1)),))

    assert (part.low, part.high) == (0, part.count)
    assert offsets_of((part,)) == list(range(low, max(high, low + 1)))


BIG = chunk(70_000)


def test_a_window_waits_for_a_fuller_batch_but_not_for_a_full_one() -> None:
    batcher = Batcher(events=3, size=1 << 20, window=0.5)
    assert batcher.wait(0.0) is None
    batcher.add(0, [chunk(2)], 10.0)

    assert batcher.wait(10.0) == 0.5
    assert batcher.wait(10.5) == 0.0
    batcher.add(0, [chunk(1, 2)], 10.1)
    assert batcher.wait(10.1) == 0.0
    assert batcher.wanting() == ()


@pytest.mark.parametrize("sizes", [(4,), (3, 3, 1)])
def test_what_is_left_when_a_batch_is_taken_waits_a_whole_window(sizes: tuple[int, ...]) -> None:
    batcher = Batcher(events=3, size=1 << 20, window=0.5)
    firsts = itertools.accumulate(sizes, initial=0)
    batcher.add(0, [chunk(size, first) for size, first in zip(sizes, firsts, strict=False)], 10.0)

    assert offsets_of(batcher.take(10.2, 2)) == list(range(sum(sizes) - 1))
    assert len(batcher) == 1
    assert batcher.wait(10.2) == 0.5


def test_an_event_larger_than_a_batch_goes_alone() -> None:
    batcher = Batcher(events=10, size=1, window=0.0)
    batcher.add(0, [chunk(3)], 0.0)

    assert [offsets_of(batcher.take(0.0)) for _ in range(3)] == [[0], [1], [2]]
