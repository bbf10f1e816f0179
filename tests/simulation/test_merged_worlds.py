"""Merges in a world, as an author would test them: late speakers, crashes, reruns."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Batch, Context, Event, Failures, Retry
from headrace.model.errors import Misuse, Unknown
from headrace.testing.world import World

DAY = 1_767_225_600


def house(*, batch_size: int = 100, fails: set[int] | None = None) -> App:
    """An app that notes in which order it is handed two streams; `fails` are tried twice."""
    app = App("house")
    doors, rooms = app.stream("doors"), app.stream("rooms")
    seen = app.stream("seen")
    failing = set(fails or ())

    @app.function(
        doors,
        rooms,
        merge="time",
        idle_timeout=2,
        batch_size=batch_size,
        retry=Retry(initial_delay=5, jitter=False),
    )
    def join(events: Batch[Any], context: Context) -> Failures:
        bad: list[Event[Any]] = []
        for event in events:
            if event.value in failing:
                failing.discard(event.value)
                bad.append(event)
            else:
                context.publish(seen, event.value, key="all")
        return Failures(bad)

    return app


def two_houses() -> App:
    """The same, and two more functions: one that merges likewise, one that merges the other way round."""
    app = house()
    doors, rooms = app.streams["doors"], app.streams["rooms"]
    for name, streams in (("other", (doors, rooms)), ("turned", (rooms, doors))):
        output = app.stream(f"seen_{name}")

        @app.function(*streams, merge="time", idle_timeout=2, name=name)
        def join(event: Event[Any], context: Context, output: Any = output) -> None:
            context.publish(output, event.value, key="all")

    return app


def happen(world: World, stream: str, *seconds: int) -> None:
    """Events whose values are when they happened."""
    for second in seconds:
        world.publish(stream, second, key="hall", time=DAY + second)


def test_a_rerun_takes_a_late_stream_where_it_came_in() -> None:
    with World(house()) as world:
        happen(world, "doors", 10, 20)
        world.advance(5)
        happen(world, "rooms", 5, 30)
        happen(world, "doors", 40)
        world.run_until_idle()
        first = world.values("seen")
        assert first == [10, 20, 5, 30, 40]

        world.reset("house.join")
        world.run_until_idle()

        assert world.values("seen") == first + first


def test_a_rerun_does_not_wait_again_for_what_it_knows() -> None:
    with World(house()) as world:
        for second in range(10, 60, 10):
            happen(world, "doors", second)
            world.advance(5)
            happen(world, "rooms", second - 5)
            world.advance(5)
        first = world.values("seen")
        assert len(first) == 10

        world.reset("house.join")
        world.advance(0.5)

        assert world.values("seen") == first + first


def test_a_rerun_begun_while_a_stream_is_passed_does_not_let_it_in_before() -> None:
    with World(house()) as world:
        happen(world, "doors", 10, 20)
        world.advance(5)
        assert world.values("seen") == [10, 20]
        world.reset("house.join")
        happen(world, "rooms", 5)
        world.run_until_idle()

        assert world.values("seen") == [10, 20, 10, 20, 5]


@pytest.mark.parametrize("at", ["commit:after-fsync", "pump:after-commit", "claim:after-write"])
def test_a_crash_while_a_stream_is_passed_changes_nothing_of_a_rerun(at: str) -> None:
    with World(house(batch_size=1)) as world:
        happen(world, "doors", 10, 20, 30)
        world.crash(at)
        world.advance(2.1)
        world.crash()
        happen(world, "rooms", 5)
        world.run_until_idle()
        first = world.values("seen")
        assert sorted(first) == [5, 10, 20, 30]

        world.reset("house.join")
        world.crash(at)
        world.run_until_idle()

        assert world.values("seen") == first + first


def test_what_failed_in_a_batch_comes_before_what_was_not_handed_out_yet() -> None:
    with World(house(batch_size=2, fails={10})) as world:
        # `rooms` tells of 5 after 20: by the logs alone it would now go before 10.
        happen(world, "doors", 10, 50)
        happen(world, "rooms", 20, 5, 60)
        world.advance(1)
        assert world.values("seen") == [20]
        world.crash()
        world.run_until_idle()

        assert world.values("seen") == [20, 10, 5, 50, 60]


def test_another_function_takes_the_order_of_the_first() -> None:
    with World(two_houses()) as world:
        world.pause("house.other")
        happen(world, "doors", 10, 20)
        world.advance(5)
        happen(world, "rooms", 5, 30)
        happen(world, "doors", 40)
        world.run_until_idle()
        world.resume("house.other")
        world.run_until_idle()
        # It came later, when all was there: the logs alone put 5 first.
        assert world.values("seen_other") == [5, 10, 20, 30, 40]

        world.reset("house.other", order_of="house.join")
        world.run_until_idle()
        assert world.values("seen_other")[5:] == world.values("seen") == [10, 20, 5, 30, 40]


def test_only_an_order_of_the_same_streams_can_be_taken() -> None:
    with World(two_houses()) as world:
        with pytest.raises(Misuse, match="same streams"):
            world.reset("house.turned", order_of="house.join")
        with pytest.raises(Unknown, match="nobody"):
            world.reset("house.join", order_of="house.nobody")
