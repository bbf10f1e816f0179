"""Lanes: order per key under any schedule, nothing lost, nothing twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.delivery.intake.lanes import LaneRules, Lanes
from headrace.delivery.unit import FOREVER, cut
from headrace.model.event import Event
from headrace.model.record import Chunk, encode_events


def chunk_of(keys: list[str | None], first: int) -> Chunk:
    body = encode_events([Event(b"%d" % (first + i), key) for i, key in enumerate(keys)])
    return Chunk("s", 0, first, len(keys), body, 0, 0, len(keys))


def lanes(**more: object) -> Lanes:
    settings = {"events": 10, "size": 1 << 20, "window": 0.0, "capacity": 1_000} | more
    return Lanes(**settings)  # type: ignore[arg-type] # by name


def taken(chunks: tuple[Chunk, ...]) -> list[tuple[str | None, int]]:
    return [
        (event.key, chunk.offset_of(i))
        for chunk in chunks
        for i, event in enumerate(chunk.events(), start=chunk.low)
    ]


def test_a_key_in_flight_holds_back_only_its_own_followers() -> None:
    given_lanes = lanes(events=2)
    given_lanes.add(0, [chunk_of(["a", "b"], 0), chunk_of(["a", "c"], 2)], 0.0)
    first = given_lanes.take(0.0)
    second = given_lanes.take(0.0)
    assert taken(first) == [("a", 0), ("a", 2)]
    assert taken(second) == [("b", 1), ("c", 3)]


def test_a_released_key_goes_on_with_its_next_event() -> None:
    given_lanes = lanes(events=1)
    given_lanes.add(0, [chunk_of(["a", "a"], 0)], 0.0)
    first = given_lanes.take(0.0)
    assert given_lanes.wait(0.0) is None
    given_lanes.release(first)
    assert taken(given_lanes.take(0.0)) == [("a", 1)]


def test_a_window_that_is_over_does_not_begin_anew_with_what_comes_next() -> None:
    given_lanes = lanes(window=1.0, rules=LaneRules(one_key=True))
    given_lanes.look(0)
    given_lanes.add(0, [chunk_of(["a"], 0)], 0.0)
    assert given_lanes.wait(0.0) == 1.0
    given_lanes.look(400_000)
    given_lanes.add(0, [chunk_of(["a"], 1)], 0.4)
    assert given_lanes.wait(0.4) == 0.6
    # Nobody was free to take it as its time came, and then another one comes.
    given_lanes.look(1_000_000)
    given_lanes.add(0, [chunk_of(["a"], 2)], 1.0)
    assert given_lanes.wait(1.0) == 0.0
    assert taken(given_lanes.take(1.0)) == [("a", 0), ("a", 1), ("a", 2)]


def test_events_without_a_key_wait_for_nobody() -> None:
    given_lanes = lanes(events=1)
    given_lanes.add(0, [chunk_of([None, None], 0)], 0.0)
    assert taken(given_lanes.take(0.0)) == [(None, 0)]
    assert taken(given_lanes.take(0.0)) == [(None, 1)]


@given(
    keys=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=20),
    limit=st.integers(1, 8),
    choices=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200),
)
def test_order_per_key_and_nothing_lost_under_any_schedule(
    keys: list[str | None], sizes: list[int], limit: int, choices: list[tuple[int, bool]]
) -> None:
    given_lanes = lanes(events=limit)
    at, turn = 0, 0
    while at < len(keys):
        size = sizes[turn % len(sizes)]
        given_lanes.add(0, [chunk_of(keys[at : at + size], at)], 0.0)
        at, turn = at + size, turn + 1
    flying: list[tuple[Chunk, ...]] = []
    done: list[tuple[str | None, int]] = []
    script = iter(choices)
    while True:
        number, partly = next(script, (0, False))
        if given_lanes.wait(0.0) == 0.0 and (number % 2 or not flying):
            batch = given_lanes.take(0.0)
            running = {key for one in flying for key, _ in taken(one) if key is not None}
            assert not running & {key for key, _ in taken(batch)}
            flying.append(batch)
        elif flying:
            batch = flying.pop(number % len(flying))
            total = sum(chunk.size for chunk in batch)
            if partly and total > 1:
                head, tail = cut(batch, 0, 1), cut(batch, 1, total)
                given_lanes.release(head)
                done += taken(tuple(head))
                flying.append(tail)
            else:
                given_lanes.release(batch)
                done += taken(batch)
        else:
            break
    assert sorted(offset for _, offset in done) == list(range(len(keys)))
    for key in {"a", "b", "c"}:
        offsets = [offset for known, offset in done if known == key]
        assert offsets == sorted(offsets)


RULES = st.builds(
    LaneRules,
    by_key=st.booleans(),
    together=st.booleans(),
    one_key=st.booleans(),
    singly=st.booleans(),
    skip=st.booleans(),
    quiet=st.sampled_from([0, 3]),
    longest=st.sampled_from([0, 5]),
    priority=st.sampled_from([None, "priority"]),
)


@given(
    rules=RULES,
    events=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 3), st.integers(-2, 2)),
        min_size=1,
        max_size=40,
    ),
    limit=st.integers(1, 5),
    window=st.sampled_from([0.0, 4e-6]),
    blocked=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30),
)
def test_whatever_the_rules_every_event_is_taken_once_or_left_out_once(
    rules: LaneRules,
    events: list[tuple[str | None, int, int]],
    limit: int,
    window: float,
    blocked: list[str | None],
) -> None:
    now = 0
    script = list(blocked)

    def until(key: str | None, at: int) -> int:
        return at + 1 if script and script.pop() == key else at

    given_lanes = lanes(
        events=limit, window=window, rules=msgspec.structs.replace(rules, until=until)
    )
    done: list[tuple[str | None, int]] = []
    left: list[int] = []

    def step() -> bool:
        given_lanes.look(now)
        if given_lanes.wait(now / 1e6) != 0.0:
            return False
        batch = given_lanes.take(now / 1e6)
        found = taken(batch)
        keys = [key for key, _ in found if key is not None or rules.together]
        if rules.by_key and rules.one_key:
            assert len(set(keys)) <= 1
        if rules.by_key and rules.singly:
            assert len(set(keys)) == len(keys)
        given_lanes.release(batch)
        done.extend(found)
        return bool(found)

    for number, (key, pause, ahead) in enumerate(events):
        now += pause
        body = encode_events([Event(b"", key, headers={"headrace-priority": str(ahead)})])
        given_lanes.look(now)
        given_lanes.add(0, [Chunk("s", 0, number, 1, body, now, 0, 1)], now / 1e6)
        step()
    for _ in range(200):
        now += 1
        step()
    left = [chunk.start for chunk, _ in given_lanes.left_out()]
    assert len(given_lanes) == 0
    assert sorted([offset for _, offset in done] + left) == list(range(len(events)))
    if rules.by_key:
        for key in ("a", "b", "c"):
            offsets = [offset for known, offset in done if known == key]
            assert offsets == sorted(offsets)
    if not (rules.quiet or rules.skip):
        assert left == []
    if rules.quiet and rules.by_key and not rules.skip:
        last = {key: number for number, (key, _, _) in enumerate(events) if key is not None}
        assert set(last.values()) <= {offset for _, offset in done}


def test_a_clock_that_is_set_back_keeps_no_lane_waiting_for_as_long() -> None:
    given_lanes = lanes(rules=LaneRules(together=True, quiet=50))
    body = encode_events([Event(b"", "a")])
    given_lanes.look(1_000)
    given_lanes.add(0, [Chunk("s", 0, 0, 1, body, 1_000, 0, 1)], 0.0)
    given_lanes.look(400)
    given_lanes.add(0, [Chunk("s", 0, 1, 1, encode_events([Event(b"", "b")]), 1_000, 0, 1)], 0.0)

    given_lanes.look(449)
    assert given_lanes.take(0.0) == ()
    given_lanes.look(450)
    assert taken(given_lanes.take(0.0)) == [("a", 0), ("b", 1)]


def test_a_window_of_a_key_counts_from_its_first_event_whoever_reads_it() -> None:
    def given(events: list[tuple[int, int]]) -> Lanes:
        found = lanes(window=50e-6, rules=LaneRules(together=True, one_key=True))
        for offset, appended in events:
            found.look(max(appended, 130))
            body = encode_events([Event(b"", "a")])
            found.add(0, [Chunk("s", 0, offset, 1, body, appended, 0, 1)], 0.0)
        return found

    one_life = lanes(window=50e-6, rules=LaneRules(together=True, one_key=True))
    for offset, appended in enumerate((100, 120, 140)):
        one_life.look(appended)
        body = encode_events([Event(b"", "a")])
        one_life.add(0, [Chunk("s", 0, offset, 1, body, appended, 0, 1)], 0.0)
    # The same events, read at 130 or later by another host.
    for found in (one_life, given([(0, 100), (1, 120), (2, 140)])):
        found.look(149)
        assert found.take(0.0) == ()
        found.look(150)
        assert taken(found.take(0.0)) == [("a", 0), ("a", 1), ("a", 2)]


def test_of_lanes_that_wait_for_room_the_first_goes_when_a_run_of_its_key_ends() -> None:
    room = {"a": FOREVER, "b": 0}
    rules = LaneRules(by_key=False, until=lambda key, now: room[str(key)])
    waiting = lanes(events=1, rules=rules)
    waiting.look(1)
    waiting.add(0, [chunk_of(["a", "a", "b", "a"], 0)], 0.0)
    assert taken(waiting.take(0.0)) == [("b", 2)]
    assert waiting.take(0.0) == ()

    for place in (0, 1, 3):
        room["a"] = 0
        waiting.unblock("a")
        assert taken(waiting.take(0.0)) == [("a", place)]
        assert waiting.wait(0.0) is None
        room["a"] = FOREVER
    waiting.unblock("a")
    waiting.unblock("b")
    assert waiting.wait(0.0) is None
    assert len(waiting) == 0


@pytest.mark.parametrize("due", [100, FOREVER])
def test_a_key_that_waited_for_room_twice_still_runs_one_event_after_the_other(due: int) -> None:
    room = {"a": due}
    waiting = lanes(events=1, rules=LaneRules(until=lambda key, now: room[str(key)]))
    waiting.look(1)
    for offset in range(2):
        waiting.add(0, [chunk_of(["a"], offset)], 0.0)
        assert waiting.take(0.0) == ()
    waiting.add(0, [chunk_of(["a"], 2)], 0.0)
    room["a"] = 0
    first = waiting.take(0.0)
    assert taken(first) == [("a", 0)]

    waiting.unblock("a")
    waiting.look(100)
    assert waiting.take(0.0) == ()
    waiting.release(first)
    second = waiting.take(0.0)
    assert taken(second) == [("a", 1)]
    waiting.unblock("a")
    waiting.look(200)
    assert waiting.take(0.0) == ()
