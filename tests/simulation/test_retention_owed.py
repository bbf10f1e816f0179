"""Retention does not take what a function is owed; what it takes of a slow one, it says."""

from __future__ import annotations

from typing import Literal

import pytest

from headrace import App, Consumer, Context, Event, ParkPartition, Retry
from headrace.sources import Lag
from headrace.testing import World

EventOrder = Literal["partition", "key", "none"]


def sweep(world: World) -> int:
    """Let retention run; the lowest offset that is left of `orders`."""
    broker = world._lives.broker
    world._drive(broker.sweep())
    low: int = world._drive(broker.extent("orders", 0)).low
    return low


def logged(world: World) -> list[str]:
    lines = world._lives.node.services.runs.logs(None, limit=1_000, after=0)
    return [line.text for line in lines if line.level == "error"]


def test_a_partition_that_is_stopped_stays_so_with_its_event() -> None:
    app = App("shop")
    orders, done = app.stream("orders", retention_age=3600.0), app.stream("done")
    is_mended: list[bool] = []

    @app.function(orders, batch_size=1, retry=Retry(attempts=2), on_failure=ParkPartition())
    def book(event: Event[int], context: Context) -> None:
        if event.value == 1 and not is_mended:
            raise ValueError("poison")
        context.publish(done, event.value)

    with World(app) as world:
        world.publish("orders", 0)
        world.publish("orders", 1)
        world.publish("orders", 2)
        world.advance("3h")
        assert sweep(world) == 1
        world.crash()
        world.advance("3h")
        assert sweep(world) == 1
        assert [key.status for key in world.parked()] == ["partition"]
        assert (world.values("done"), world.lag("shop.book")) == ([0], 2)
        is_mended.append(True)
        world.redrive("shop.book")
        world.run_until_idle()
        assert world.values("done") == [0, 1, 2]
        assert (sweep(world), world.parked(), logged(world)) == (3, [], [])


@pytest.mark.parametrize("order", ["partition", "key", "none"])
def test_an_event_that_waits_for_its_next_attempt_is_kept(order: EventOrder) -> None:
    app = App("shop")
    orders, done = app.stream("orders", retention_age=60.0), app.stream("done")

    @app.function(
        orders,
        batch_size=1,
        order=order,
        retry=Retry(attempts=3, initial_delay=7200.0, max_delay=7200.0, jitter=False),
    )
    def book(event: Event[int], context: Context) -> None:
        if event.value == 1 and context.attempt == 1:
            raise ValueError("not yet")
        context.publish(done, event.value)

    with World(app) as world:
        for value in range(3):
            world.publish("orders", value, key=f"k{value}")
        world.advance("1h")
        assert sweep(world) == 1
        world.crash()
        world.run_until_idle()
        assert sorted(world.values("done")) == [0, 1, 2]
        assert (sweep(world), logged(world)) == (3, [])


def test_what_a_function_that_is_gone_was_owed_holds_nothing() -> None:
    app = App("shop")
    orders = app.stream("orders", retention_age=60.0)

    @app.function(orders, retry=Retry(attempts=1), on_failure=ParkPartition())
    def book(event: Event[int]) -> None:
        raise ValueError("poison")

    with World(app) as world:
        world.publish("orders", 0)
        world.advance("1h")
        assert sweep(world) == 0
        del world._lives.node.supervisor.functions["shop.book"]
        assert sweep(world) == 1


def test_what_retention_takes_from_a_slow_function_is_told() -> None:
    app = App("shop")
    orders, done = app.stream("orders", retention_age=3600.0), app.stream("done")

    @app.function(orders, output=done)
    def book(event: Event[int]) -> int:
        return event.value

    with World(app) as world:
        world.pause("shop.book")
        for value in range(3):
            world.publish("orders", value)
        world.advance("2h")
        assert sweep(world) == 3
        world.resume("shop.book")
        world.publish("orders", 3)
        world.run_until_idle()
        assert world.values("done") == [3]
        assert world.left_out("shop.book") == {"retention": 3}
        (line,) = logged(world)
        assert "3 events (orders/0/0 to 2)" in line


def test_what_retention_takes_from_a_lag_is_told() -> None:
    app = App("shop")
    app.stream("orders", retention_age=3600.0)
    done = app.stream("done")

    @app.function(Lag("orders", thresholds={0: 0, 1: 1}))
    def book(consumer: Consumer, context: Context) -> None:
        while batch := consumer.fetch(10):
            for event in batch:
                context.publish(done, event.value)
            consumer.commit()

    with World(app) as world:
        world.pause("shop.book")
        world.publish("orders", 0)
        world.publish("orders", 1)
        world.advance("2h")
        assert sweep(world) == 2
        world.publish("orders", 2)
        world.resume("shop.book")
        world.advance("1m")
        assert world.values("done") == [2]
        assert world.left_out("shop.book") == {"retention": 2}


def test_what_compaction_takes_is_nobodys_loss() -> None:
    app = App("shop")
    orders, done = app.stream("orders", cleanup="compact"), app.stream("done")

    @app.function(orders, output=done)
    def book(event: Event[int]) -> int:
        return event.value

    with World(app) as world:
        world.pause("shop.book")
        for value in range(3):
            world.publish("orders", value, key="k")
        world._drive(world._lives.broker.compact("orders"))
        world.resume("shop.book")
        world.run_until_idle()
        assert (world.values("done"), world.left_out("shop.book")) == ([2], {})
