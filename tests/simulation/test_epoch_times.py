"""The epoch is a time like any other, wherever an event's time is read."""

from __future__ import annotations

from typing import Any

from headrace import App, Batch, Context, Event, Output
from headrace.sources import Emit
from headrace.testing import World
from headrace.windows import ClosedWindow, TumblingWindow


def test_an_event_of_the_epoch_keeps_its_time_on_its_way() -> None:
    app = App("a")
    one, two, seen = app.stream("one"), app.stream("two"), app.stream("seen")

    @app.function(one, output=two)
    def by_context(event: Event[Any], context: Context) -> Output[Any]:
        context.publish(seen, ["by context", event.timestamp], time=event.time)
        return Output(event.value, time=event.timestamp)

    @app.function(two, output=seen)
    def after(event: Event[Any]) -> str:
        return event.time.isoformat()

    with World(app) as world:
        world.publish(one, 1, time=0.0)
        world.run_until_idle()
        assert world.values(seen) == [["by context", 0.0], "1970-01-01T00:00:00+00:00"]
        assert [event.timestamp for event in world.published(two)] == [0.0]
        assert world.published(seen)[0].timestamp == 0.0


def test_a_window_takes_an_event_of_the_epoch_where_it_happened() -> None:
    app = App("a")
    readings, totals = app.stream("readings"), app.stream("totals", value=ClosedWindow)

    @app.window(readings, TumblingWindow(10), output=totals)
    def total(so_far: int | None, event: Event[Any]) -> int:
        return (so_far or 0) + int(event.value)

    with World(app) as world:
        world.publish(readings, 5, key="k", time=0.0)
        world.publish(readings, 7, key="k", time=20.0)
        world.run_until_idle()
        (window,) = world.values(totals)
        assert (window.start.timestamp(), window.value) == (0.0, 5)


def test_a_merge_puts_an_event_of_the_epoch_first() -> None:
    app = App("a")
    left, right, seen = app.stream("left"), app.stream("right"), app.stream("seen")

    @app.function(left, right, merge="time", output=seen, batch_size=10, idle_timeout=2)
    def merged(events: Batch[Any]) -> list[Any]:
        return [event.value for event in events]

    with World(app) as world:
        world.publish(left, "later", key="k", time=5.0)
        world.publish(right, "first", key="k", time=0.0)
        world.run_until_idle()
        assert world.values(seen) == ["first", "later"]


def test_a_generator_may_say_that_it_happened_at_the_epoch() -> None:
    app = App("a")
    seen = app.stream("seen")

    @app.source(every=1.0)
    def old(checkpoint: Any) -> Any:
        if checkpoint is None:
            yield Emit("x", time=0, checkpoint=1)

    @app.function(old, output=seen)
    def note(event: Event[Any]) -> float:
        return event.timestamp

    with World(app) as world:
        world.advance("5s")
        assert world.values(seen) == [0.0]
