"""Windows: as a plain computation over all events would have them, in any batching, whatever dies."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Context, Event
from headrace.errors import Misuse, Unavailable
from headrace.sdk.windows import Windows, spans_at
from headrace.testing import World
from headrace.windows import ClosedWindow, HoppingWindow, SessionWindow, TumblingWindow

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS: tuple[Windows, ...] = (TumblingWindow(10), HoppingWindow(10, 4), SessionWindow(5))
S = 1_000_000


def counting(by: Windows, lateness: float, batch_size: int = 10) -> App:
    app = App("count")
    seen, late, totals = app.stream("seen"), app.stream("late"), app.stream("totals")

    @app.window(
        seen,
        by,
        lateness=lateness,
        late=late,
        output=totals,
        combine=lambda a, b: sorted(a + b),
        batch_size=batch_size,
    )
    def collect(held: list[int] | None, event: Event[int]) -> list[int]:
        return sorted([*(held or ()), event.value])

    return app


Told = tuple[str, float, float, tuple[int, ...]]


def ran(
    app: App, events: list[tuple[str, float]], crash: tuple[str, int] | None = None
) -> tuple[list[Told], list[int]]:
    with World(app) as world:
        if crash is not None:
            world.crash(*crash)
        for number, (key, second) in enumerate(events):
            for _ in range(3):
                with suppress(Unavailable):
                    when = START + timedelta(seconds=second)
                    world.publish("seen", number, key=key, time=when, id=str(number))
                    break
        world.run_until_idle()
        base = START.timestamp()
        told = [
            (
                value["key"],
                datetime.fromisoformat(value["start"]).timestamp() - base,
                datetime.fromisoformat(value["end"]).timestamp() - base,
                tuple(value["value"]),
            )
            for value in world.values("totals")
        ]
        return told, world.values("late")


def naive(
    by: Windows, lateness: float, events: list[tuple[str, float]]
) -> tuple[list[Told], list[int]]:
    """All windows over all events that were not late, then those the last watermark closes."""
    mark, late = float("-inf"), list[int]()
    groups: dict[tuple[str, float, float], list[int]] = {}
    for number, (key, second) in enumerate(events):
        spans = [(s / S, e / S) for s, e in spans_at(by, round(second * S))]
        if isinstance(by, SessionWindow):
            start, end = spans[0]
            joined = [
                w for w in groups if w[0] == key and w[1] < end and start < w[2] and w[2] > mark
            ]
            end = max([end, *(w[2] for w in joined)])
            start = min([start, *(w[1] for w in joined)])
            spans = [(start, end)]
            if end > mark:
                numbers = [n for w in joined for n in groups.pop(w)]
                groups[key, start, end] = numbers
        fits = [(s, e) for s, e in spans if e > mark]
        for s, e in fits:
            groups.setdefault((key, s, e), []).append(number)
        if not fits:
            late.append(number)
        mark = max(mark, second - lateness)
    return [
        (key, s, e, tuple(sorted(numbers))) for (key, s, e), numbers in groups.items() if e <= mark
    ], late


@given(
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 3.0, 12.0]),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60).map(float)), max_size=25),
    st.sampled_from([1, 3, 100]),
    st.sampled_from(
        [None, ("commit:before-write", 2), ("commit:after-fsync", 1), ("pump:after-invoke", 2)]
    ),
)
def test_windows_are_what_a_plain_computation_finds_in_any_batching(
    by: Windows,
    lateness: float,
    events: list[tuple[str, float]],
    batch_size: int,
    crash: tuple[str, int] | None,
) -> None:
    told, late = ran(counting(by, lateness, batch_size), events, crash)
    expected, expected_late = naive(by, lateness, events)
    assert sorted(told) == sorted(expected)
    assert late == expected_late


def test_the_order_of_what_is_told_is_the_same_in_any_batching() -> None:
    events = [(key, float(second)) for second in (3, 1, 14, 12, 40, 33, 70) for key in "ba"]
    for by in KINDS:
        one, ten = (ran(counting(by, 2.0, size), events) for size in (1, 100))
        assert one == ten
        assert all(before[2] <= after[2] for before, after in pairwise(one[0][:4]))


@pytest.mark.parametrize(
    ("by", "second", "expected"),
    [
        (TumblingWindow(10), 10.0, [(10, 20)]),
        (TumblingWindow(10), 9.999999, [(0, 10)]),
        (HoppingWindow(10, 4), 10.0, [(4, 14), (8, 18)]),
        (HoppingWindow(10, 5), 10.0, [(5, 15), (10, 20)]),
        (SessionWindow(5), 1.0, [(1, 6)]),
    ],
)
def test_an_event_is_in_the_windows_that_hold_its_time(
    by: Windows, second: float, expected: list[tuple[int, int]]
) -> None:
    assert spans_at(by, round(second * S)) == [(s * S, e * S) for s, e in expected]


def test_what_is_told_may_be_shaped_and_what_is_held_has_its_type() -> None:
    class Sum(msgspec.Struct):
        total: int = 0

    app = App("sum")
    seen, totals = app.stream("seen"), app.stream("totals")

    def shaped(window: ClosedWindow) -> dict[str, Any] | None:
        return None if window.key == "quiet" else {"of": window.key, "total": window.value.total}

    # The annotation is given as a type, since it is local here.
    def add(held: Any, event: Any) -> Any:
        return Sum((held.total if held else 0) + event.value)

    add.__annotations__["return"] = Sum
    app.window(seen, TumblingWindow("1m"), output=totals, close=shaped)(add)
    with World(app) as world:
        for second, key in ((0, "a"), (1, "quiet"), (2, "a"), (61, "a")):
            world.publish("seen", 2, key=key, time=START + timedelta(seconds=second))
        world.run_until_idle()
        assert world.values("totals") == [{"of": "a", "total": 4}]


def test_a_late_event_keeps_its_key_its_headers_and_its_time() -> None:
    with World(counting(TumblingWindow(10), 0.0)) as world:
        world.publish("seen", 1, key="a", time=START + timedelta(seconds=30))
        world.publish("seen", 2, key="b", time=START, headers={"trace": "7"})
        world.run_until_idle()
        (late,) = world.published("late")
        assert (late.key, late.value, late.time) == ("b", 2, START)
        assert dict(late.headers) == {"trace": "7"}


def test_a_key_of_any_length_has_its_windows() -> None:
    app = counting(TumblingWindow(10), 0.0)
    told, _ = ran(app, [("k" * 900, 1.0), ("", 2.0), ("/", 3.0), ("", 30.0)])
    assert {key for key, *_ in told} == {"k" * 900, "", "/"}


@pytest.mark.parametrize(
    ("by", "more", "says"),
    [
        (60, {}, "is not a window"),
        (SessionWindow(5), {}, "combine="),
        (TumblingWindow(5), {"output": None}, "not a stream"),
        (TumblingWindow(5), {"order": "key"}, "leave out `order=`"),
        (TumblingWindow(5), {"lateness": -1}, "lateness"),
        (TumblingWindow(5), {"idle": 0}, "`idle` is 0 s"),
        (TumblingWindow(5), {"idle": "soon"}, "`idle` is 'soon'"),
        (TumblingWindow(5), {"idle": "400d"}, "`idle` is 3.456e"),
    ],
)
def test_a_window_that_cannot_work_is_refused(by: Any, more: dict[str, Any], says: str) -> None:
    app = App("wrong")
    seen, totals = app.stream("seen"), app.stream("totals")

    def fold(held: Any, event: Event[Any]) -> Any:
        return held

    with pytest.raises(Misuse, match=says):
        app.window(seen, by, **({"output": totals} | more))(fold)


@pytest.mark.parametrize(
    "wrong",
    [lambda: HoppingWindow(5, 6), lambda: HoppingWindow("1d", 1), lambda: TumblingWindow(0)],
)
def test_a_span_that_cannot_work_is_refused(wrong: Any) -> None:
    with pytest.raises(Misuse):
        wrong()


def test_what_windows_keep_is_not_among_the_authors_state() -> None:
    app = App("a")
    stream, out, asked, told = app.stream("s"), app.stream("o"), app.stream("u"), app.stream("t")
    windows = app.store("windows", int)

    @app.window(stream, TumblingWindow(10), output=out)
    def total(so_far: int | None, event: Event[Any]) -> int:
        return (so_far or 0) + 1

    @app.function(asked)
    def mine(event: Event[Any], context: Context) -> None:
        for key in ("s/0/at", "_window/a.total/s/0/at", "/windows"):
            context.state[key] = 1
            context.store(windows)[key] = 1
        context.publish(told, sorted(context.state))

    with World(app) as world:
        world.publish("s", 1, key="k", time=1000.0)
        world.publish("u", 1)
        world.run_until_idle()
        assert world.values("t") == [["/windows", "_window/a.total/s/0/at", "s/0/at"]]
        assert len(world.state(mine)) == len(world.store(windows)) == 3
        assert "s/0/at" not in world.state("a.total")
        world.publish("s", 1, key="k", time=1005.0)
        world.publish("s", 1, key="k", time=1010.0)
        world.run_until_idle()
        assert len(world.values("o")) == 1
