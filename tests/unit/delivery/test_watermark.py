"""The watermark: the contiguous finished prefix, whatever the order things finish in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import chunk

from headrace.delivery.partition.watermark import MAX_TAKEN_BACK, Watermark
from headrace.model.effects import Progress


@given(st.permutations(range(12)), st.integers(0, 12))
def test_it_is_the_contiguous_prefix_after_any_order(order: list[int], count: int) -> None:
    mark = Watermark(Progress(0))
    for offset in order[:count]:
        mark.finish(offset)
    done = set(order[:count])

    low = next(offset for offset in range(13) if offset not in done)
    assert mark.progress() == Progress(low, tuple(sorted(each for each in done if each > low)))
    assert [mark.is_finished(offset) for offset in range(12)] == [
        offset in done for offset in range(12)
    ]


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 6)), max_size=12))
def test_chunks_finish_what_their_events_would_one_by_one(pieces: list[tuple[int, int]]) -> None:
    whole, single = Watermark(Progress(3)), Watermark(Progress(3))
    for first, count in pieces:
        whole.finish_to(chunk(count, first))
        for offset in range(first, first + count):
            single.finish(offset)

    assert whole.progress() == single.progress()


@given(st.permutations(range(10)), st.sets(st.integers(0, 9)))
def test_offsets_that_do_not_exist_hold_nothing_up(order: list[int], missing: set[int]) -> None:
    mark = Watermark(Progress(0))
    for offset in order:
        if offset in missing:
            mark.skip(offset, offset + 1)
        else:
            mark.finish(offset)

    assert mark.progress() == Progress(10)


@given(st.sets(st.integers(1, 30)), st.integers(0, 5))
def test_what_a_commit_stored_is_where_the_next_owner_begins(sparse: set[int], low: int) -> None:
    stored = Progress(low, tuple(sorted(each for each in sparse if each > low)))

    assert Watermark(stored).progress() == stored


def test_it_never_goes_back() -> None:
    mark = Watermark(Progress(10))
    mark.finish(3)
    mark.finish_to(chunk(4, 2))
    mark.skip(0, 9)

    assert mark.progress() == Progress(10)


def test_a_compacted_chunk_finishes_only_what_it_holds() -> None:
    mark = Watermark(Progress(0))
    mark.finish_to(chunk(2, 0, offsets=(0, 4)))

    assert mark.progress() == Progress(1, (4,))


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1))
def test_what_is_taken_back_is_all_that_is_unfinished_again(
    order: list[int], taken: set[int]
) -> None:
    mark = Watermark(Progress(0))
    for offset in order:
        mark.finish(offset)

    assert mark.take_back(taken)
    assert [offset for offset in range(12) if not mark.is_finished(offset)] == sorted(taken)
    for offset in taken:
        mark.finish(offset)
    assert mark.progress() == Progress(12)


def test_nothing_is_taken_back_from_far_below() -> None:
    mark = Watermark(Progress(MAX_TAKEN_BACK + 1))

    assert not mark.take_back({0})
    assert mark.progress() == Progress(MAX_TAKEN_BACK + 1)


@given(st.sets(st.integers(0, 15)), st.integers(0, 15), st.integers(0, 6))
def test_what_is_finished_in_a_range_is_counted(done: set[int], low: int, count: int) -> None:
    mark = Watermark(Progress(0))
    for offset in done:
        mark.finish(offset)
    assert mark.finished_in(low, low + count) == len(done & set(range(low, low + count)))
