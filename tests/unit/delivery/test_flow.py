"""Flow control's decisions: pure functions, under any times and keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.delivery.flow.limits import (
    MICROS,
    FlowLimiter,
    SampleFilter,
    StartRate,
    pace_of,
    paced,
    spent,
)
from headrace.delivery.unit import FOREVER
from headrace.model.event import Event
from headrace.model.flow_control import Concurrency, Sample, Throttle
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk, encode_events


@given(
    steps=st.lists(st.integers(0, 5_000_000), max_size=200),
    limit=st.integers(1, 20),
    per=st.floats(0.01, 100),
    burst=st.integers(1, 10),
)
def test_no_window_holds_more_than_the_pace_allows(
    steps: list[int], limit: int, per: float, burst: int
) -> None:
    pace, full, now = pace_of(limit, per, burst), 0, 1_000_000_000
    begun: list[int] = []
    for step in steps:
        now += step
        if paced(pace, full, now) <= now:
            full = spent(pace, full, now)
            begun.append(now)
    for first, at in enumerate(begun):
        for last in range(first, len(begun)):
            assert last - first + 1 <= burst + (begun[last] - at) / pace.step


@given(full=st.integers(0, 1 << 50), now=st.integers(1 << 40, 1 << 50), burst=st.integers(1, 9))
def test_whoever_waits_until_the_time_given_may_begin_then(full: int, now: int, burst: int) -> None:
    pace = StartRate(1_000, burst)
    then = paced(pace, full, now)
    assert then >= now
    assert paced(pace, full, then) == then
    assert then == now or paced(pace, full, then - 1) == then


def test_a_key_without_room_waits_until_a_run_of_it_ends() -> None:
    flow = FlowLimiter(FunctionSpec(name="a.f", app="a", concurrency=Concurrency(3, key_limit=1)))
    told: list[str | None] = []
    flow.watch(told.append)
    flow.begin({"x"}, 5)
    assert flow.until_key("x", 5) == FOREVER
    assert flow.until_key("y", 5) == 5
    assert flow.until(5) == 5
    flow.begin({"y"}, 5)
    flow.begin({"z"}, 5)
    assert flow.until(5) == FOREVER
    flow.end({"x"})
    assert told == ["x"]
    assert flow.until_key("x", 5) == 5
    assert flow.until(5) == 5


def test_a_throttle_says_when_the_next_run_may_begin() -> None:
    flow = FlowLimiter(FunctionSpec(name="a.f", app="a", throttle=Throttle(2, per=10, burst=2)))
    start = 1_000 * MICROS
    flow.begin((), start)
    flow.begin((), start)
    assert flow.until(start) == start + 5 * MICROS
    assert flow.full_again(["a", "b"]) == {None: start + 10 * MICROS}


@given(
    times=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b"])), max_size=40),
    cut=st.integers(0, 40),
)
def test_a_rate_judges_alike_however_the_events_are_read(
    times: list[tuple[int, str]], cut: int
) -> None:
    spec = FunctionSpec(name="a.f", app="a", sample=Sample(2, per=20))
    moments = sorted(at for at, _ in times)
    chunks = [
        Chunk("s", 0, n, 1, encode_events([Event(b"", key)]), at * MICROS + MICROS, 0, 1)
        for n, (at, (_, key)) in enumerate(zip(moments, times, strict=True))
    ]
    at_once, in_two = SampleFilter(spec, ["s"], 0), SampleFilter(spec, ["s"], 0)
    passing, left = at_once.filter("s", chunks)
    first, _ = in_two.filter("s", chunks[:cut])
    second, _ = in_two.filter("s", chunks[cut:])
    assert [c.start for c in passing] == [c.start for c in (*first, *second)]
    assert sorted(c.start for c in (*passing, *left)) == list(range(len(chunks)))
    again, _ = at_once.filter("s", passing)
    assert [c.start for c in again] == [c.start for c in passing]


@given(since=st.integers(1, 1 << 40), burst=st.integers(1, 9))
def test_a_clock_that_is_set_back_makes_nobody_wait_longer(since: int, burst: int) -> None:
    pace = StartRate(1_000, burst)
    full = spent(pace, 0, 1 << 45)

    now = (1 << 45) - since

    assert paced(pace, full, now) <= now + pace.step
    assert spent(pace, full, now) <= now + pace.step * (burst + 1)


def test_events_after_the_clock_was_set_back_are_not_left_out_for_as_long() -> None:
    sieve = SampleFilter(FunctionSpec(name="a.f", app="a", sample=Sample(1, per=60)), ["s"], 0)
    body = encode_events([Event(b"", "k")])
    day = 86_400 * MICROS
    passing = [
        [piece.start for piece in sieve.filter("s", [Chunk("s", 0, place, 1, body, at, 0, 1)])[0]]
        for place, at in enumerate((2 * day, 2 * day + 1, day, day + 1))
    ]
    assert passing == [[0], [], [2], []]
