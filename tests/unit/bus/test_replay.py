"""Replays: what a stream held comes again, once, to the rules that were named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from headrace import App
from headrace.bus import Rule
from headrace.errors import Misuse, Unknown
from headrace.sdk.event import Event
from headrace.testing import World

EVERY: dict[str, Any] = {"detail": {"n": [{"exists": True}]}}


def numbers() -> App:
    app = App("a")
    app.stream("events", 2)
    even, copy = app.stream("even"), app.stream("copy", 2)
    app.forward(Rule(EVERY, streams="events"), to=copy, name="copy")

    @app.function(Rule({"detail": {"even": [True]}}, streams="events"), output=even)
    def take(event: Event[Any]) -> Any:
        return {"n": event.value["n"], "replay": event.headers.get("headrace-replay")}

    return app


def fill(world: World, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        world.publish("events", {"n": number, "even": number % 2 == 0}, key=str(number % 4))


def test_events_between_two_times_come_again_to_the_named_rule() -> None:
    with World(numbers()) as world:
        fill(world, 4)
        world.advance("1h")
        begin = world.now
        fill(world, 4, first=4)
        world.advance("1h")
        end = world.now - timedelta(seconds=1)
        fill(world, 4, first=8)
        world.run_until_idle()
        world.bus_replay("events", "a.take", begin=begin, end=end)
        world.run_until_idle()
        again = [one["n"] for one in world.values("even") if one["replay"] == "replay"]
        assert sorted(again) == [4, 6]
        assert len(world.values("even")) == 6 + 2
        assert len(world.values("copy")) == 12


@pytest.mark.parametrize("at", ["feed:before-append", "feed:after-append"])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_host_that_dies_during_a_replay_doubles_and_loses_nothing(at: str, passes: int) -> None:
    with World(numbers(), seed=passes) as world:
        for start in range(0, 3_000, 1_000):
            rows = [{"n": number, "even": False} for number in range(start, start + 1_000)]
            world.publish("events", *rows, key=lambda row: str(row["n"] % 4))
        world.run_until_idle()
        world.crash(at, passes)
        world.bus_replay("events", name="again")
        world.run_until_idle()
        assert world.deaths
        again = [one for one in world.published("copy") if "headrace-replay" in one.headers]
        assert sorted(one.value["n"] for one in again) == list(range(3_000))
        assert len(world.values("copy")) == 6_000


def test_a_replay_that_cannot_be_is_refused() -> None:
    with World(numbers()) as world:
        fill(world, 1)
        world.run_until_idle()
        with pytest.raises(Unknown, match=r"no rule `a\.other` watches"):
            world.bus_replay("events", "a.other")
        with pytest.raises(Unknown, match="nothing to replay"):
            world.bus_replay("even")
        with pytest.raises(Misuse, match="before it begins"):
            world.bus_replay("events", begin=world.now + timedelta(hours=1))
        world.bus_replay("events")
        world.run_until_idle()
        with pytest.raises(Misuse, match="there was a replay `replay` before"):
            world.bus_replay("events")
