"""Values outside the bounds of a signature do not reach the handler, whichever way they come in."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pydantic
import pytest
from msgspec import Meta

from headrace import App, Batch, Context, DeadLetter, Event, Http, Retry
from headrace.errors import Misuse
from headrace.sdk.stream import Stream
from headrace.testing import World
from headrace.windows import TumblingWindow

Ten = Annotated[int, Meta(ge=10)]
Short = Annotated[str, Meta(max_length=3)]
ONCE: dict[str, Any] = {"retry": Retry(attempts=1), "on_failure": DeadLetter()}


def heard(source: Any, of: Any, app: App, seen: Stream[Any], *, batch: bool = False) -> None:
    """A function that publishes what it was given."""
    is_called = isinstance(source, Http) and source.mode != "async"
    if batch:

        def take(events: Any, context: Context) -> None:
            for event in events:
                context.publish(seen, event.value)

        take.__annotations__["events"] = of
    else:

        def take(event: Any, context: Context) -> None:  # type: ignore[misc]  # one or the other
            context.publish(seen, event.value)

        take.__annotations__["event"] = of
    app.function(source, publishes=[seen], **({} if is_called else ONCE))(take)


@pytest.mark.parametrize("declared", [Any, int, Ten])
@pytest.mark.parametrize("batch", [False, True])
def test_of_a_stream(declared: Any, batch: bool) -> None:
    app = App("a")
    seen = app.stream("seen")
    source = app.stream("s") if declared is Any else app.stream("s", value=declared)
    heard(source, Batch[Ten] if batch else Event[Ten], app, seen, batch=batch)
    with World(app) as world:
        world.publish("s", 12)
        world.ask("POST", "/-/v1/streams/s", b"7")
        world.run_until_idle()
        assert world.values("seen") == [12]
        assert len(world.dead_letters()) == 1


@pytest.mark.parametrize(("of", "good", "bad"), [(Short, "abc", "abcd"), (list[Ten], [10], [9])])
def test_of_texts_and_of_what_is_within(of: Any, good: Any, bad: Any) -> None:
    app = App("a")
    seen = app.stream("seen")
    source = app.stream("s", value=str) if of is Short else app.stream("s")
    heard(source, Event[of], app, seen)
    with World(app) as world:
        for value in (good, bad):
            raw = value.encode() if of is Short else json.dumps(value).encode()
            world.ask("POST", "/-/v1/streams/s", raw)
        world.run_until_idle()
        assert world.values("seen") == [good]
        assert len(world.dead_letters()) == 1


def test_of_a_queue() -> None:
    app = App("a")
    seen, jobs = app.stream("seen"), app.queue("jobs")
    heard(jobs, Event[Ten], app, seen)
    with World(app) as world:
        for number in (12, 7):
            world.ask("POST", "/-/v1/queues/jobs", b"%d" % number)
        world.advance("5s")
        assert world.values("seen") == [12]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("of", "good", "bad"), [(Ten, b"12", b"7"), (Short, b"abc", b"abcd")])
def test_of_a_route(mode: Any, of: Any, good: bytes, bad: bytes) -> None:
    app = App("a")
    heard(Http("POST", "/x", mode=mode), Event[of], app, app.stream("seen"))
    with World(app) as world:
        assert world.ask("POST", "/x", good).status == {"sync": 200, "async": 202}[mode]
        assert world.ask("POST", "/x", bad).status == 400


def test_of_a_window() -> None:
    app = App("a")
    source, closed = app.stream("s"), app.stream("closed")

    @app.window(source, TumblingWindow("10s"), output=closed, **ONCE)
    def total(so_far: int | None, event: Event[Ten]) -> int:
        return (so_far or 0) + event.value

    with World(app) as world:
        for number in (12, 7, 10):
            world.ask("POST", "/-/v1/streams/s", b"%d" % number)
        world.run_until_idle()
        world.advance("20s")
        world.publish("s", 100)
        world.run_until_idle()
        assert [each["value"] for each in world.values("closed")] == [22]
        assert len(world.dead_letters()) == 1


def test_bounds_that_only_models_know_are_refused() -> None:
    app = App("a")
    source = app.stream("s")
    with pytest.raises(Misuse, match=r"pydantic's models.*Meta"):
        heard(source, Event[Annotated[int, pydantic.Field(ge=10)]], app, app.stream("seen"))
