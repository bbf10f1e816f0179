"""Functions that consume by themselves: exactly once, in order, under crashes, faults and recalls."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from headrace import App, Batch, Consumer, Context
from headrace.model.errors import Fenced, Misuse
from headrace.sources import Lag
from headrace.testing import World
from headrace.testing.faults import Fault


def _app(*, thresholds: dict[int, int] | None = None, fetch: int = 7, lifespan: str = "60s") -> App:
    app = App("shop")
    app.stream("orders", partitions=4)
    done = app.stream("done", partitions=4)

    @app.function(Lag("orders", thresholds=thresholds or {0: 0, 1: 1, 60: 3}, lifespan=lifespan))
    def drain(consumer: Consumer[Any], context: Context) -> None:
        while batch := consumer.fetch(fetch):
            for event in batch:
                context.publish(done, event.value, key=event.key)
                context.state.update(f"n/{event.key}", lambda n: n + 1, default=0)
            consumer.commit()

    return app


def _publish(world: World, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        world.publish("orders", {"n": number}, key=f"k{number % 11}")


def _assert_whole(world: World, count: int) -> None:
    assert sorted(value["n"] for value in world.values("done")) == list(range(count))
    lanes = defaultdict(list)
    for event in world.published("done"):
        lanes[event.key].append(event.value["n"])
    assert all(lane == sorted(lane) for lane in lanes.values())
    assert sum(world.state("shop.drain").values()) == count
    assert world.lag("shop.drain") == 0


def test_nothing_is_kept_of_a_run_that_has_ended() -> None:
    with World(_app()) as world:
        _publish(world, 20)
        world.run_until_idle()

        _assert_whole(world, 20)
        assert world._lives.node.supervisor._runtime.consumer_runs._known == {}


@pytest.mark.parametrize(
    ("label", "passes"),
    [
        (label, passes)
        for label in (
            "commit:before-write",
            "commit:after-fsync",
            "claim:before-write",
            "claim:after-write",
        )
        for passes in (1, 2, 3, 5, 8)
    ],
)
def test_a_crash_at_any_point_neither_loses_nor_doubles(label: str, passes: int) -> None:
    with World(_app(), seed=passes) as world:
        world.pause("shop.drain")
        _publish(world, 100)
        world.crash(at=label, passes=passes)
        world.resume("shop.drain")
        world.run_until_idle()
        _publish(world, 100, start=100)
        world.run_until_idle()

        assert world.deaths == [f"at {label}"]
        _assert_whole(world, 200)


@pytest.mark.parametrize("seed", range(6))
def test_a_store_that_misbehaves_neither_loses_nor_doubles(seed: int) -> None:
    with World(_app(), seed=seed) as world:
        world.pause("shop.drain")
        _publish(world, 150)
        weather = world._lives.weather
        weather.odds = {fault: 0.05 for fault in Fault if fault is not Fault.NONE}
        world.resume("shop.drain")
        world.advance("1h")
        assert len(weather.struck) > 2
        world._lives.calm_down()
        world.run_until_idle()

        _assert_whole(world, 150)


def test_an_instance_that_dies_does_what_was_not_committed_again() -> None:
    with World(_app(fetch=1_000)) as world:
        world.kill_instance("shop.drain", times=3)
        _publish(world, 50)
        world.run_until_idle()

        _assert_whole(world, 50)


def test_nothing_runs_below_the_lowest_threshold() -> None:
    with World(_app(thresholds={0: 0, 30: 1})) as world:
        _publish(world, 29)
        world.advance("1d")
        assert world.values("done") == []
        _publish(world, 1, start=29)
        world.advance("10s")
        _assert_whole(world, 30)


def test_what_was_done_after_the_last_commit_is_lost_when_the_handler_raises() -> None:
    app = App("shop")
    app.stream("orders", partitions=1)
    done = app.stream("done")
    runs: list[dict[int, int]] = []

    @app.function(Lag("orders"))
    def drain(consumer: Consumer[Any], context: Context) -> None:
        runs.append(consumer.positions)
        for event in consumer.fetch(3):
            context.publish(done, event.value)
        consumer.commit()
        for event in consumer.fetch(3):
            context.publish(done, event.value)
        if len(runs) < 3:
            raise ValueError("in the middle")

    with World(app) as world:
        world.pause("shop.drain")
        world.publish("orders", *range(10))
        world.resume("shop.drain")
        world.run_until_idle()
        assert world.values("done") == list(range(10))
        assert runs == [{0: 0}, {0: 3}, {0: 6}]


def test_a_run_whose_position_was_moved_under_it_commits_nothing_more() -> None:
    app = App("shop")
    app.stream("orders")
    done = app.stream("done")
    refused: list[str] = []

    @app.function(Lag("orders"))
    async def drain(consumer: Consumer[Any], context: Context) -> None:
        for event in consumer.fetch():
            context.publish(done, event.value)
        await asyncio.sleep(10)
        try:
            consumer.commit()
        except Fenced as error:
            refused.append(type(error).__name__)
            consumer.commit()

    with World(app) as world:
        world.publish("orders", 1, 2)
        world.advance("5s")
        world.reset("shop.drain", "1")
        world.run_until_idle()
        assert refused == ["Fenced"]
        assert world.values("done") == [2]


def test_the_number_of_instances_follows_the_lag() -> None:
    app = App("shop")
    app.stream("orders", partitions=4)
    on: set[tuple[int, ...]] = set()
    seen: list[set[tuple[int, ...]]] = []

    @app.function(Lag("orders", {0: 0, 10: 1, 100: 3}))
    async def drain(consumer: Consumer[Any], context: Context) -> None:
        share = tuple(consumer.positions)
        assert not {each for other in on for each in other} & set(share)
        on.add(share)
        seen.append(set(on))
        while consumer.fetch(10):
            await asyncio.sleep(1)
            consumer.commit()
        on.remove(share)

    with World(app) as world:
        _publish(world, 9)
        world.advance("1m")
        assert seen == []
        _publish(world, 41)
        world.advance("1s")
        assert seen[-1] == {(0, 1, 2, 3)}
        _publish(world, 150)
        world.advance("5s")
        assert seen[-1] == {(0, 3), (1,), (2,)}
        world.run_until_idle()
        assert world.lag("shop.drain") == 0
        assert on == set()


def test_after_its_lifespan_a_run_is_given_nothing_more_and_another_goes_on() -> None:
    app = App("shop")
    app.stream("orders")
    runs: list[int] = []

    @app.function(Lag("orders", lifespan=5))
    async def drain(consumer: Consumer[Any], context: Context) -> None:
        runs.append(0)
        while batch := consumer.fetch(1):
            runs[-1] += len(batch)
            await asyncio.sleep(1)
        assert consumer.lag == 20 - sum(runs)

    with World(app) as world:
        world.publish("orders", *range(20))
        world.run_until_idle()
        assert runs == [5, 5, 5, 5]
        assert world.lag("shop.drain") == 0


def test_a_reset_sends_it_back_and_a_pause_holds_it() -> None:
    with World(_app()) as world:
        _publish(world, 40)
        world.run_until_idle()
        world.pause("shop.drain")
        world.reset("shop.drain", "earliest")
        world.advance("1h")
        assert len(world.values("done")) == 40
        world.resume("shop.drain")
        world.run_until_idle()
        assert len(world.values("done")) == 80


def test_marking_one_event_as_failed_is_refused_and_loses_nothing() -> None:
    app = App("shop")
    app.stream("orders")
    done = app.stream("done")
    tries: list[int] = []

    @app.function(Lag("orders"), output=done)
    def drain(consumer: Consumer[Any], context: Context) -> int | None:
        batch = consumer.fetch()
        tries.append(len(batch))
        if len(tries) == 1:
            context.fail(batch[0], "no")
        if len(tries) == 2:
            for _ in batch:
                consumer.commit()
        return len(batch)

    with World(app) as world:
        world.publish("orders", 1, 2)
        world.run_until_idle()
        assert tries == [2, 2, 2]
        assert world.values("done") == [2]


@pytest.mark.parametrize(
    ("name", "listens", "said"),
    [
        ("orders", True, "its only trigger"),
        ("order", False, "did you mean `orders`"),
        ("letters", False, "is a queue"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(name: str, listens: bool, said: str) -> None:
    app = App("shop")
    orders, _ = app.stream("orders"), app.queue("letters")
    with pytest.raises(Misuse, match=said):

        @app.function(Lag(name), *([orders] if listens else []))
        def drain(events: Batch[Any], context: Context) -> None: ...


def test_a_handler_of_single_events_cannot_consume() -> None:
    app = App("shop")
    app.stream("orders")
    with pytest.raises(Misuse, match="takes `consumer: Consumer\\[T\\]`"):

        @app.function(Lag("orders"))
        def drain(events: Batch[Any]) -> None: ...


def test_only_a_run_that_a_lag_started_has_a_consumer() -> None:
    app = App("shop")
    orders = app.stream("orders")
    with pytest.raises(Misuse, match=r"only what a `Lag\(...\)` starts takes a `Consumer`"):

        @app.function(orders)  # type: ignore[arg-type]  # that is the test
        def handle(consumer: Consumer[Any], context: Context) -> None: ...
