"""Windows that no event closes: after a while without one they close by themselves, or by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace import App, Event, Retry
from headrace.errors import Misuse, Unknown
from headrace.model.effects import Space
from headrace.model.errors import HeadraceError
from headrace.sdk.windows import Windows
from headrace.testing import World
from headrace.testing.virtual_time import VirtualClock
from headrace.windows import HoppingWindow, SessionWindow, TumblingWindow

TEN = TumblingWindow(10)
Shown = tuple[str | None, float, float, list[int]]


def collecting(by: Windows = TEN, idle: Any = "30s", partitions: int = 1, **more: Any) -> App:
    """Numbers by key, as they came."""
    app = App("a")
    seen, late = app.stream("seen", partitions=partitions), app.stream("late")
    told = app.stream("told", partitions=partitions)

    @app.window(
        seen, by, idle=idle, late=late, output=told, combine=lambda one, other: one + other, **more
    )
    def collect(held: list[int] | None, event: Event[int]) -> list[int]:
        return [*(held or ()), event.value]

    return app


def shown(world: World) -> list[Shown]:
    """What was told, with times as seconds after the first event's 1,000."""
    return [
        (value["key"], _second(value["start"]), _second(value["end"]), value["value"])
        for value in world.values("told")
    ]


def _second(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() - 1000.0


def put(world: World, second: float, *numbers: int, key: str | None = "k") -> None:
    world.publish("seen", *numbers, key=key, time=1000.0 + second)
    world.run_until_idle()


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (TumblingWindow(10), [("k", 0.0, 10.0, [1, 2])]),
        (
            HoppingWindow(10, 5),
            [("k", -5.0, 5.0, [1]), ("k", 0.0, 10.0, [1, 2]), ("k", 5.0, 15.0, [2])],
        ),
        (SessionWindow(10), [("k", 1.0, 16.0, [1, 2])]),
    ],
)
@pytest.mark.parametrize("idle", ["30s", 30, timedelta(seconds=30)])
def test_a_quiet_stream_closes_what_is_open_and_no_sooner(
    by: Windows, expected: list[Shown], idle: Any
) -> None:
    with World(collecting(by, idle, lateness="1m")) as world:
        put(world, 1, 1)
        put(world, 6, 2)
        world.advance("29s")
        assert shown(world) == []
        world.advance("2s")
        assert shown(world) == expected
        world.advance("1h")
        world.run_until_idle()
        assert shown(world) == expected
        world.assert_nothing_lost()


def test_without_idle_nothing_closes_by_itself() -> None:
    with World(collecting(idle=None)) as world:
        put(world, 1, 1)
        world.advance("1d")
        assert shown(world) == []


def test_each_event_begins_the_wait_anew() -> None:
    with World(collecting()) as world:
        for number in range(5):
            put(world, 1, number)
            world.advance("20s")
        assert shown(world) == []
        world.advance("11s")
        assert shown(world) == [("k", 0.0, 10.0, [0, 1, 2, 3, 4])]


def test_windows_of_every_key_and_of_none_close_each_partition_by_itself() -> None:
    with World(collecting(partitions=4)) as world:
        for number, key in enumerate(("a", "b", "c", "d", "e")):
            put(world, 1, number, key=key)
        world.advance("25s")
        put(world, 2, 9, key="a")
        (busy,) = {event.partition for event in world.published("seen") if event.value == 9}
        world.advance("6s")
        still = {event.key for event in world.published("seen") if event.partition == busy}
        assert {key for key, *_ in shown(world)} == {"a", "b", "c", "d", "e"} - still
        world.advance("30s")
        assert len(shown(world)) == 5
    with World(collecting()) as world:
        put(world, 1, 1, 2, key=None)
        world.advance("31s")
        assert shown(world) == [(None, 0.0, 10.0, [1, 2])]


def test_what_comes_after_an_idle_close_is_late_by_the_usual_rule() -> None:
    with World(collecting(lateness="1m")) as world:
        put(world, 1, 1)
        world.advance("31s")
        put(world, 2, 2)
        assert world.values("late") == [2]
        put(world, 11, 3)
        put(world, 12, 4)
        world.advance("31s")
        assert shown(world) == [("k", 0.0, 10.0, [1]), ("k", 10.0, 20.0, [3, 4])]
        assert world.values("late") == [2]


def test_a_session_that_went_idle_is_over_and_the_next_event_begins_another() -> None:
    with World(collecting(SessionWindow(10))) as world:
        put(world, 1, 1)
        world.advance("31s")
        put(world, 5, 2)
        world.advance("31s")
        assert shown(world) == [("k", 1.0, 11.0, [1]), ("k", 5.0, 15.0, [2])]
        assert world.values("late") == []


@pytest.mark.parametrize(
    "at", ["pump:before-invoke", "pump:after-invoke", "pump:after-read", "pump:after-commit"]
)
@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_windows_close_once_wherever_the_host_dies(at: str, passes: int) -> None:
    with World(collecting(partitions=2)) as world:
        for number, key in enumerate("abcd"):
            put(world, 1, number, key=key)
        world.crash(at, passes)
        world.advance("2m")
        world.run_until_idle()
        assert sorted(shown(world)) == [
            (key, 0.0, 10.0, [number]) for number, key in enumerate("abcd")
        ]


def test_a_restart_begins_the_wait_anew_and_loses_nothing() -> None:
    with World(collecting()) as world:
        put(world, 1, 1)
        world.advance("29s")
        world.crash()
        world.advance("29s")
        assert shown(world) == []
        put(world, 2, 2)
        world.advance("31s")
        assert shown(world) == [("k", 0.0, 10.0, [1, 2])]


def test_a_wall_clock_that_is_set_closes_nothing() -> None:
    with World(collecting()) as world:
        put(world, 1, 1)
        clock = world._lives.clock
        assert isinstance(clock, VirtualClock)
        clock.set_back(-3600)
        world.advance("29s")
        assert shown(world) == []
        clock.set_back(7200)
        world.advance("2s")
        assert len(shown(world)) == 1


def test_what_waits_to_be_folded_is_not_silence() -> None:
    with World(collecting()) as world:
        put(world, 1, 1)
        world.pause("a.collect")
        world.publish("seen", 2, key="k", time=1002.0)
        world.advance("1h")
        world.resume("a.collect")
        world.run_until_idle()
        world.fail("a.collect", times=2)
        world.publish("seen", 3, key="k", time=1003.0)
        world.advance("31s")
        assert shown(world) == [("k", 0.0, 10.0, [1, 2, 3])]
        assert world.values("late") == []


def test_an_event_that_comes_before_the_request_is_carried_out_is_folded() -> None:
    failures = [OSError("not yet")]

    def close(window: Any) -> Any:
        if failures:
            raise failures.pop()
        return window

    app = collecting(
        close=close, retry=Retry(attempts=3, initial_delay=60.0, max_delay=60.0, jitter=False)
    )
    with World(app) as world:
        put(world, 1, 1)
        # Its window closes, and cannot be told for a minute: what is asked meanwhile waits behind it.
        world.publish("seen", 2, key="k", time=1011.0)
        world.advance("45s")
        assert shown(world) == []
        world.publish("seen", 3, key="k", time=1012.0)
        world.advance("20s")
        assert shown(world) == [("k", 0.0, 10.0, [1])]
        world.advance("31s")
        assert shown(world) == [("k", 0.0, 10.0, [1]), ("k", 10.0, 20.0, [2, 3])]
        assert world.values("late") == []


def test_a_window_that_cannot_be_told_fails_alone() -> None:
    def close(window: Any) -> Any:
        return 1 // (window.key != "bad") and window

    with World(collecting(close=close, retry=Retry(attempts=1))) as world:
        for key in ("good", "bad", "fine"):
            put(world, 1, 1, key=key)
        world.advance("31s")
        assert {key for key, *_ in shown(world)} == {"good", "fine"}
        assert [dead.cause.kind for dead in world.dead_letters()] == ["ZeroDivisionError"]


def test_a_date_is_not_work() -> None:
    with World(collecting(idle="7d")) as world:
        put(world, 1, 1)
        begun = world._lives.clock.now()
        world.run_until_idle()
        assert world._lives.clock.now() - begun < 1_000_000
        world.advance("8d")
        assert len(shown(world)) == 1


def test_after_a_reset_windows_close_anew() -> None:
    with World(collecting()) as world:
        put(world, 1, 1)
        put(world, 11, 2)
        world.advance("31s")
        first = shown(world)
        world.reset("a.collect")
        world.run_until_idle()
        assert shown(world) == [*first, ("k", 0.0, 10.0, [1])]
        world.advance("31s")
        assert shown(world) == first * 2
        assert world.values("late") == []


def test_the_map_and_the_explainer_say_when_windows_close() -> None:
    with World(collecting(idle="90s")) as world:
        put(world, 1, 1)
        assert "idle=90s" in world.map()
        found = world._drive(world._lives.node.services.explainer.explain("seen", 0, 0))
        assert "open windows close after 90 s without an event" in found.functions[0].policy


# --- by hand ----------------------------------------------------------------------------------


def test_a_flush_closes_what_is_open_and_what_comes_later_is_late() -> None:
    with World(collecting(idle=None, partitions=3)) as world:
        for number, key in enumerate("abcd"):
            put(world, 1, number, key=key)
        assert world.flush("a.collect") == 4
        world.run_until_idle()
        assert {key for key, *_ in shown(world)} == set("abcd")
        assert world.flush("a.collect") == 0
        put(world, 2, 9, key="a")
        assert world.values("late") == [9]


def test_a_flush_of_a_partition_leaves_the_others_open() -> None:
    with World(collecting(idle=None, partitions=3)) as world:
        for number, key in enumerate("abcd"):
            put(world, 1, number, key=key)
        keys = {event.key for event in world.published("seen") if event.partition == 1}
        assert world.flush("a.collect", partition=1) == len(keys)
        world.run_until_idle()
        assert {key for key, *_ in shown(world)} == keys
        with pytest.raises(Unknown, match="there is no 3"):
            world.flush("a.collect", partition=3)


@pytest.mark.parametrize(
    ("by", "late"), [(TumblingWindow(10), 9), (HoppingWindow(10, 5), 9), (SessionWindow(10), -5)]
)
def test_a_flush_of_a_key_closes_its_windows_for_it_alone(by: Windows, late: float) -> None:
    with World(collecting(by, idle=None, lateness="1m")) as world:
        put(world, 6, 1, key="a")
        put(world, 6, 2, key="b")
        put(world, 8, 3, key="a")
        count = world.flush("a.collect", key="a")
        world.run_until_idle()
        assert {key for key, *_ in shown(world)} == {"a"}
        assert len(shown(world)) == count == (2 if isinstance(by, HoppingWindow) else 1)
        # For `a` these windows are over, for `b` they are open.
        put(world, late, 4, key="a")
        put(world, 7, 5, key="b")
        assert world.values("late") == [4]
        put(world, 21, 6, key="a")
        put(world, 200, 7, key="c")
        for number in (2, 5):
            assert any(key == "b" and number in held for key, _, _, held in shown(world))
        assert [held for key, *_, held in shown(world) if key == "a"][-1] == [6]
        # What is remembered of a key goes once the watermark is past it.
        rows = [key for key, _ in world._lives.rows_of(Space.WINDOWS)]
        assert any(b"=c" in row for row in rows)
        assert not any(b"=a" in row for row in rows)


def test_a_flush_of_no_key_is_not_a_flush_of_all() -> None:
    with World(collecting(idle=None)) as world:
        put(world, 1, 1, key=None)
        put(world, 1, 2, key="a")
        assert world.flush("a.collect", key=None) == 1
        world.run_until_idle()
        assert shown(world) == [(None, 0.0, 10.0, [1])]


def test_a_flush_waits_for_a_function_that_is_held_up() -> None:
    with World(collecting(idle=None)) as world:
        put(world, 1, 1)
        world.pause("a.collect")
        flushed = world._drive(world._lives.node.services.windows.flush("a.collect"))
        assert (flushed.closed, flushed.waiting, flushed.state) == (0, [0], "paused")
        world.resume("a.collect")
        world.run_until_idle()
        assert len(shown(world)) == 1


def test_only_windows_can_be_flushed() -> None:
    app = App("b")
    stream = app.stream("s")

    @app.function(stream)
    def plain(event: Event[int]) -> None:
        """Nothing."""

    with World(app) as world:
        with pytest.raises(Misuse, match="has no windows"):
            world.flush("b.plain")
        with pytest.raises(HeadraceError):
            world.flush("b.nothing")
