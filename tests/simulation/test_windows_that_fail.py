"""A window that cannot be told fails alone, as an event does; a reset begins windows anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from headrace import App, Context, Event, ParkKey, Retry, Sample
from headrace.testing import World
from headrace.windows import ClosedWindow, SessionWindow, TumblingWindow

TRIES = Retry(attempts=3, initial_delay=1.0)


def totals(close: Callable[[ClosedWindow], Any] | None = None, **options: Any) -> App:
    """Sums by key in windows of 10 s."""
    app = App("a")
    values, sums = app.stream("values", partitions=2), app.stream("sums", partitions=2)

    @app.window(values, TumblingWindow(10), output=sums, close=close, **options)
    def total(so_far: int | None, event: Event[int]) -> int:
        return (so_far or 0) + event.value

    return app


def feed(world: World) -> None:
    """One window of `zero` that holds 0, and four of `k` that hold 5 and are closed."""
    world.publish("values", 0, key="zero", time=1000.0)
    for step in range(1, 6):
        for key in ("k", "zero"):
            world.publish("values", 5, key=key, time=1000.0 + 10 * step)
    world.run_until_idle()


def test_a_window_that_cannot_be_told_is_a_dead_letter_and_the_others_are_told() -> None:
    with World(totals(close=lambda window: 100 // window.value, retry=TRIES)) as world:
        feed(world)
        assert world.values("sums") == [20] * 8
        (dead,) = world.dead_letters()
        assert (dead.function, dead.cause.kind, dead.attempts) == (
            "a.total",
            "ZeroDivisionError",
            3,
        )
        assert "100 // window.value" in dead.cause.traceback
        assert dead.position.stream == "_a.total.window.1"
        (event,) = msgspec.msgpack.decode(dead.event, type=list[Any])
        window = msgspec.msgpack.decode(event[0], type=ClosedWindow)
        bounds = [datetime.fromtimestamp(each, UTC) for each in (1000, 1010)]
        assert window == ClosedWindow("zero", bounds[0], bounds[1], 0)
        world.assert_nothing_lost()


def test_a_window_is_tried_again_and_told_once() -> None:
    failures = [OSError("not now"), OSError("not yet")]

    def close(window: ClosedWindow) -> Any:
        if failures and window.key == "zero":
            raise failures.pop()
        return [window.key, window.value]

    with World(totals(close=close, retry=TRIES)) as world:
        feed(world)
        assert world.dead_letters() == []
        assert sorted(world.values("sums")) == [["k", 5]] * 4 + [["zero", 0]] + [["zero", 5]] * 4


def test_a_window_that_failed_is_told_when_it_is_redriven() -> None:
    is_mended: list[bool] = []

    def close(window: ClosedWindow) -> Any:
        return 100 if is_mended and not window.value else 100 // window.value

    for policy in ({}, {"on_failure": ParkKey()}):
        is_mended.clear()
        with World(totals(close=close, retry=Retry(attempts=1), **policy)) as world:
            feed(world)
            is_mended.append(True)
            world.redrive("a.total")
            world.run_until_idle()
            assert 100 in world.values("sums")
            assert len(world.values("sums")) == 9
            assert world.dead_letters() == []


def test_a_window_that_its_output_does_not_take_fails_alone() -> None:
    app = App("a")
    values, sums = app.stream("values"), app.stream("sums", value=int)

    @app.window(
        values,
        TumblingWindow(10),
        output=sums,
        retry=Retry(attempts=1),
        close=lambda window: window.value if window.value else "none",
    )
    def total(so_far: int | None, event: Event[int]) -> int:
        return (so_far or 0) + event.value

    with World(app) as world:
        feed(world)
        assert world.values("sums") == [5] * 8
        assert [dead.cause.kind for dead in world.dead_letters()] == ["Invalid"]


def test_what_may_be_left_out_is_events_and_never_windows() -> None:
    with World(totals(sample=Sample(10, per=3600.0, per_key=False))) as world:
        # One batch is looked at as a whole: so many of it are run in each partition, and no more.
        for start in (0, 200):
            world.publish("values", *range(start, start + 200), key=str, time=1000.0)
            world.advance("2h")
        left = world.left_out("a.total")["sample"]
        world.publish("values", *range(8), key=str, time=2000.0)
        world.run_until_idle()
        # Every event that was run has a window, and all of them are told, though they close at once.
        assert len(world.values("sums")) == 400 - left == 40


def test_a_reset_folds_anew_and_nothing_is_late() -> None:
    app = App("a")
    values, sums, late = app.stream("values"), app.stream("sums"), app.stream("late")

    @app.window(
        values, SessionWindow(10), output=sums, late=late, combine=lambda one, other: one + other
    )
    def total(so_far: int | None, event: Event[int]) -> int:
        return (so_far or 0) + event.value

    @app.function(sums)
    def seen(event: Event[Any], context: Context) -> None:
        context.state.put("seen", event.value)

    with World(app) as world:
        feed(world)
        first = world.values("sums")
        assert first
        world.reset("a.total")
        world.run_until_idle()
        assert world.values("late") == []
        assert world.values("sums") == first * 2
        assert world.state(seen).get("seen") == first[-1]
