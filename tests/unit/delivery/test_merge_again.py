"""Merging the same logs again gives the same order, whom it passed over included."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.merging import Group, Logs

# What happens: an append to a stream, time that passes, a batch (of which a share is committed), a
# crash. Event times are small, so that late ones and ties are frequent.
appends = st.tuples(st.just("append"), st.integers(0, 2), st.lists(st.integers(1, 30), max_size=4))
waits = st.tuples(st.just("wait"), st.sampled_from((0.4, 1.0, 2.0)), st.none())
works = st.tuples(st.just("work"), st.integers(1, 5), st.integers(0, 7))
crashes = st.tuples(st.just("crash"), st.none(), st.none())
stories = st.lists(st.one_of(appends, waits, works, works, crashes), max_size=40)


def tell(story: list[tuple[str, object, object]], group: Group) -> None:
    """Let it happen."""
    for what, first, second in story:
        match what, first, second:
            case "append", int(stream), list(times):
                known = group.logs.times
                known[stream % len(known)].extend(times)
            case "wait", float(seconds), _:
                # A stream holds the others back from when somebody has looked.
                for _ in range(2):
                    group.look()
                    if group.open:
                        group.commit(list(group.open))
                    group.now += seconds
            case "work", int(most), int(share):
                group.look(most)
                done = [at for bit, at in enumerate(group.open) if bit >= 3 or share >> bit & 1]
                if group.open:
                    group.commit(done)
            case _:
                group.live()


@given(st.integers(2, 3), stories, stories, st.integers(1, 6))
def test_a_second_run_over_the_same_logs_takes_the_same_order(
    streams: int,
    first: list[tuple[str, object, object]],
    second: list[tuple[str, object, object]],
    batch: int,
) -> None:
    group = Group(Logs(streams), batch=batch)
    tell(first, group)
    group.finish()
    assert sorted(group.order) == [
        (stream, offset)
        for stream, times in enumerate(group.logs.times)
        for offset in range(len(times))
    ]

    before = group.reset()
    tell([step for step in second if step[0] != "append"], group)
    group.finish()

    assert group.order == before


@given(stories, stories)
def test_a_run_that_is_sent_back_halfway_takes_the_order_it_had_taken(
    first: list[tuple[str, object, object]], second: list[tuple[str, object, object]]
) -> None:
    group = Group(Logs(2))
    tell(first, group)
    before = group.reset()
    tell(second, group)
    group.finish()

    assert [at for at in group.order if at in set(before)] == before
    assert group.order[: len(before)] == before


@given(stories, stories, st.lists(st.integers(0, 12), min_size=3, max_size=3))
def test_a_run_over_what_retention_left_hands_out_all_of_it_once(
    first: list[tuple[str, object, object]],
    second: list[tuple[str, object, object]],
    lows: list[int],
) -> None:
    group = Group(Logs(3))
    tell(first, group)
    group.reset()
    group.logs.lows = [
        min(low, len(times)) for low, times in zip(lows, group.logs.times, strict=True)
    ]
    tell(second, group)
    group.finish()

    assert sorted(group.order) == [
        (stream, offset)
        for stream, times in enumerate(group.logs.times)
        for offset in range(group.logs.lows[stream], len(times))
    ]
