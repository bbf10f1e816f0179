"""What a merge's memory holds, and what bounds it."""

from __future__ import annotations

import pytest
from tests.unit.delivery.making import chunk
from tests.unit.delivery.merging import Group, Logs, at_once

from headrace.delivery.intake.merge import order_store
from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order import SkippedStream
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import Corrupt
from headrace.storage.kv.keys import after


def kept(group: Group, stream: int = 1) -> list[tuple[int, ...]]:
    """The cuts that are remembered of one stream's passes, the first first."""
    low = group.book._stream(stream)
    rows = at_once(group.storage.scan(Space.META, low, after(low), limit=1 << 20))
    return sorted(order_store._cut_decoder.decode(row) for _, row in rows)


def land_all(group: Group) -> None:
    group.look()
    group.commit(list(group.open))


def pass_over(group: Group) -> None:
    """Let the second stream be passed over by whatever the first has."""
    group.look()
    group.now += 2.0
    land_all(group)


def test_nothing_is_kept_while_every_stream_has_something_to_read() -> None:
    group = Group(Logs(2))
    group.logs.times = [[1, 3, 5], [2, 4, 6]]
    land_all(group)
    land_all(group)

    assert at_once(group.storage.scan(Space.META, b"")) == []


def test_nothing_is_kept_of_a_stream_that_spoke_in_time_after_all() -> None:
    group = Group(Logs(2))
    group.logs.times[0] = [1, 2]
    pass_over(group)
    assert kept(group) == [(2, 0)]

    group.logs.times[0].append(9)
    group.logs.times[1].append(3)
    land_all(group)

    assert kept(group) == []
    assert group.order == [(0, 0), (0, 1), (1, 0)]


def test_a_cut_is_kept_of_a_stream_that_spoke_too_late() -> None:
    group = Group(Logs(2))
    group.logs.times[0] = [4, 5]
    pass_over(group)
    group.logs.times[1] += [1, 9]
    group.logs.times[0].append(7)
    land_all(group)

    assert kept(group) == [(2, 0)]
    assert group.order == [(0, 0), (0, 1), (1, 0), (0, 2)]


def test_in_a_new_life_nobody_knows_whether_a_stream_speaks_in_time_so_its_cut_stays() -> None:
    group = Group(Logs(2))
    group.logs.times[0] = [9]
    pass_over(group)
    group.live()
    group.logs.times[0].append(3)
    pass_over(group)
    group.logs.times[0].append(20)
    # In time for what this life has passed it by, and too late for what the one before had.
    group.logs.times[1].append(5)
    land_all(group)

    assert kept(group) == [(2, 0)]
    before = group.reset()
    group.finish()
    assert group.order[: len(before)] == before == [(0, 0), (0, 1), (1, 0)]


def test_an_empty_look_at_one_stream_does_not_pass_over_another_that_was_not_asked() -> None:
    merge = Merge(3, events=100, size=1 << 20, window=0.0, lateness=1.0)
    merge.add(0, [chunk(2, 0, stream="a", times=[5, 6])], 0.0)
    merge.add(1, [chunk(1, 0, stream="b", times=[1])], 0.0)
    assert merge.wait(0.0) == 1.0

    # The third is passed; the second has been emptied, but its log may hold more.
    taken = merge.take(1.0)

    assert [one.stream for one in taken] == ["b"]
    merge.wanting()
    merge.add(1, [chunk(1, 1, stream="b", times=[2])], 1.0)
    assert merge.wait(1.0) == 0.0
    assert [one.stream for one in merge.take(1.0)] == ["b"]


def test_a_stream_of_which_only_filtered_events_were_read_is_not_dry() -> None:
    merge = Merge(2, events=100, size=1 << 20, window=0.0, lateness=0.0)
    merge.wanting()
    merge.add(0, [chunk(1, 0, stream="l", times=[5])], 0.0)
    merge.add(1, [], 0.0)

    assert merge.wait(0.0) is None
    merge.wanting()
    assert merge.wait(0.0) == 0.0


def late_again_and_again(group: Group, times: int) -> None:
    """The second stream is passed over, and speaks too late, so many times."""
    for _ in range(times):
        group.logs.times[0].append(100)
        pass_over(group)
        group.logs.times[1].append(1)
        group.finish()


def test_what_is_about_events_that_the_log_removed_is_removed() -> None:
    group = Group(Logs(2))
    late_again_and_again(group, 6)
    assert len(kept(group)) == 6

    group.logs.lows = [3, 0]
    at_once(group.book.trim())
    # Each of the second's first three events was passed by events that are gone.
    assert kept(group) == [(4, 3), (5, 4), (6, 5)]

    group.logs.lows = [3, 5]
    at_once(group.book.trim())
    assert kept(group) == [(6, 5)]

    group.logs.lows = [6, 6]
    at_once(group.book.trim())
    assert kept(group) == []


def test_the_oldest_are_forgotten_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_store, "MAX_PASSES", 4)
    monkeypatch.setattr(order_store, "PAGE", 3)
    group = Group(Logs(2))
    late_again_and_again(group, 10)

    at_once(group.book.trim())

    assert kept(group) == [(7, 6), (8, 7), (9, 8), (10, 9)]
    # What is left still holds for what comes after.
    before = group.reset()
    group.finish()
    assert group.order[-4:] == before[-4:]


def test_it_is_time_to_trim_at_first_and_again_after_so_many() -> None:
    group = Group(Logs(2))
    due = [group.book.is_due]
    at_once(group.book.trim())
    due.append(group.book.is_due)
    group.book._untrimmed = order_store.TRIM_EVERY - 1
    group.logs.times[0].append(1)
    pass_over(group)
    due.append(group.book.is_due)

    assert due == [True, False, True]


def test_more_than_a_page_is_remembered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_store, "PAGE", 2)
    group = Group(Logs(2))
    late_again_and_again(group, 7)
    before = group.reset()

    passes = at_once(group.book.load({"s0": 0, "s1": 0})).passes
    assert [one for one in passes if one.stream] == [SkippedStream(1, cut) for cut in kept(group)][
        ::-1
    ]
    group.finish()
    assert group.order == before


def test_a_merge_of_other_streams_begins_anew_and_forgets() -> None:
    group = Group(Logs(2))
    late_again_and_again(group, 2)
    other = MergeOrderStore(
        group.storage, group._low, function="g", streams=("s1", "s0"), partition=0
    )
    neighbour = MergeOrderStore(
        group.storage, group._low, function="gg", streams=("s1", "s0"), partition=0
    )
    assert at_once(other.load({"s0": 0, "s1": 0})).passes == ()
    at_once(neighbour.trim())
    assert len(kept(group)) == 2

    at_once(other.trim())

    assert kept(group) == []


def test_nobody_is_held_back_for_events_that_are_gone() -> None:
    group = Group(Logs(2))
    late_again_and_again(group, 3)
    group.reset()
    # All of the first stream is gone, and nothing new is there to say so.
    group.logs.times[0].clear()

    assert group.look() == []
    group.now += 1.0
    assert group.look() == [(1, 0), (1, 1), (1, 2)]


def test_streams_that_would_wait_for_each_other_go_on() -> None:
    group = Group(Logs(2))
    group.logs.times = [[5, 5], [3, 3]]
    for one in (SkippedStream(0, (0, 2)), SkippedStream(1, (2, 0))):
        row = order_store._encoder.encode(one.cut)
        put = Put(Space.META, group.book._key((one.stream, one.offset)), row)
        at_once(group.storage.apply(Change(puts=(put,))))
    group.live()

    assert group.look() == [(1, 0), (1, 1)]
    group.commit(list(group.open))
    assert kept(group, 0) == [(0, 2)]
    assert kept(group, 1) == []


def test_rows_that_are_not_ours_are_told_of() -> None:
    group = Group(Logs(2))
    at_once(
        group.storage.apply(Change(puts=(Put(Space.META, group.book._prefix + b"o", b"\xc1"),)))
    )
    with pytest.raises(Corrupt, match="merge"):
        at_once(group.book.load({"s0": 0, "s1": 0}))
