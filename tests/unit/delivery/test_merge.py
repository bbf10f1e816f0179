"""Merging by event time: the order depends on the logs alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import chunk

from headrace.delivery.intake.merge.merge import Merge
from headrace.model.record import Chunk

times = st.lists(st.integers(1, 20), min_size=1, max_size=10)


def merge(**more: float) -> Merge:
    settings = {"events": 100, "size": 1 << 20, "window": 0.0, "lateness": 1.0} | more
    return Merge(2, **settings)  # type: ignore[arg-type] # by name


def seen(chunks: tuple[Chunk, ...]) -> list[tuple[int, str, int]]:
    return [
        (event.time_or(one.appended), one.stream, one.offset_of(one.low + index))
        for one in chunks
        for index, event in enumerate(one.events())
    ]


def reference(left: list[int], right: list[int]) -> list[tuple[int, str, int]]:
    """By hand: the older head first, the left one on a tie, while both have one."""
    found, i, j = list[tuple[int, str, int]](), 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            found.append((left[i], "l", i))
            i += 1
        else:
            found.append((right[j], "r", j))
            j += 1
    return found


@given(times, times, st.lists(st.integers(1, 4), max_size=8), st.integers(1, 7))
def test_the_order_is_the_logs_however_they_are_read(
    left: list[int], right: list[int], reads: list[int], limit: int
) -> None:
    merging, found = merge(events=limit), list[tuple[int, str, int]]()
    cursors, sides = [0, 0], (("l", left), ("r", right))
    turns = [*reads, *[3] * 20]
    for turn, size in enumerate(turns):
        name, known = sides[turn % 2]
        low = cursors[turn % 2]
        part = known[low : low + size]
        if part and turn % 2 in merging.wanting():
            cursors[turn % 2] += len(part)
            merging.add(turn % 2, [chunk(len(part), low, stream=name, times=part)], 0.0)
        while merging.wait(0.0) == 0.0 and (taken := merging.take(0.0)):
            assert sum(one.size for one in taken) <= limit
            found += seen(taken)

    whole = reference(left, right)
    assert found == whole[: len(found)]
    if cursors == [len(left), len(right)]:
        assert found == whole


def test_a_dry_stream_holds_the_other_back_for_the_lateness_and_no_longer() -> None:
    merging = merge(lateness=2.0)
    merging.add(0, [chunk(2, 0, stream="l", times=[5, 6])], 100.0)

    assert merging.wait(100.0) == 2.0
    assert merging.wait(101.5) == 0.5
    assert merging.wait(102.0) == 0.0
    assert seen(merging.take(102.0)) == [(5, "l", 0), (6, "l", 1)]
    assert merging.wait(102.0) is None


def test_events_without_a_time_count_from_when_they_were_appended() -> None:
    merging = merge()
    merging.add(0, [chunk(1, 0, stream="l", appended=9)], 0.0)
    merging.add(1, [chunk(1, 0, stream="r", appended=3), chunk(1, 1, stream="r", appended=20)], 0.0)

    assert [stream for _, stream, _ in seen(merging.take(0.0))] == ["r", "l"]
