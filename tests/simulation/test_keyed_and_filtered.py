"""Lanes and patterns on the whole engine, on virtual time."""

from __future__ import annotations

from headrace import App, Batch, Context, DeadLetter, Event, ParkKey, Retry
from headrace.testing.world import World


def test_a_failing_key_does_not_hold_up_its_neighbours_and_keeps_its_order() -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")
    patience = {"left": 2}

    @app.function(
        orders, mode="keyed", parallelism=4, batch_size=1, retry=Retry(attempts=5, jitter=False)
    )
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        if event.value["n"] == 0 and patience["left"]:
            patience["left"] -= 1
            raise RuntimeError("not yet")
        context.publish(seen, event.value, key=event.key)

    with World(app) as world:
        for n in range(3):
            world.publish("orders", {"n": n}, key="slow")
            world.publish("orders", {"n": n + 10}, key="quick")
        world.run_until_idle()
        values = [event.value["n"] for event in world.published("seen")]
    assert [n for n in values if n < 10] == [0, 1, 2]
    assert [n for n in values if n >= 10] == [10, 11, 12]
    assert values.index(12) < values.index(0)


def test_a_parked_key_is_redriven_in_order_among_lanes() -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")
    broken = {"is": True}

    @app.function(
        orders,
        mode="keyed",
        parallelism=3,
        batch_size=2,
        retry=Retry(attempts=1),
        on_failure=ParkKey(),
    )
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        if event.key == "bad" and broken["is"]:
            raise RuntimeError("down")
        context.publish(seen, event.value, key=event.key)

    with World(app) as world:
        for n in range(4):
            world.publish("orders", {"n": n}, key="bad")
            world.publish("orders", {"n": n + 10}, key="good")
        world.run_until_idle()
        assert [e.value["n"] for e in world.published("seen")] == [10, 11, 12, 13]
        world.crash()
        broken["is"] = False
        world.redrive("shop.handle")
        world.run_until_idle()
        values = [event.value["n"] for event in world.published("seen")]
    assert [n for n in values if n < 10] == [0, 1, 2, 3]


def test_what_a_pattern_does_not_mean_counts_as_done() -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")

    @app.function(
        orders, pattern={"value": {"total": [{"numeric": [">", 5]}]}}, on_failure=DeadLetter()
    )
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(seen, event.value)

    with World(app) as world:
        for total in (1, 9, 2, 8, 3):
            world.publish("orders", {"total": total})
        world.run_until_idle()
        assert [event.value["total"] for event in world.published("seen")] == [9, 8]
        assert world.lag() == 0


def test_a_key_that_failed_in_a_batch_is_tried_again_before_its_followers() -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")
    patience = {"left": 3}

    @app.function(
        orders, mode="keyed", parallelism=4, batch_size=20, retry=Retry(attempts=5, jitter=False)
    )
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        if event.value["n"] == 1 and event.key == "slow" and patience["left"]:
            patience["left"] -= 1
            raise RuntimeError("not yet")
        context.publish(seen, event.value, key=event.key)

    with World(app) as world:
        for n in range(6):
            world.publish("orders", {"n": n}, key="slow")
            world.publish("orders", {"n": n + 10}, key="quick")
        world.run_until_idle()
        values = [event.value["n"] for event in world.published("seen")]
        assert world.dead_letters("shop.handle") == []
    assert [n for n in values if n < 10] == [0, 1, 2, 3, 4, 5]
    assert [n for n in values if n >= 10] == [10, 11, 12, 13, 14, 15]


def test_halves_of_a_failing_batch_do_not_run_a_key_beside_itself() -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")

    @app.function(
        orders, mode="keyed", parallelism=4, batch_size=16, retry=Retry(attempts=2, jitter=False)
    )
    def handle(events: Batch[dict[str, int]], context: Context) -> None:
        for event in events:
            if event.value["n"] == 3:
                raise RuntimeError("poison")
            context.publish(seen, event.value, key=event.key)

    with World(app) as world:
        for n in range(16):
            world.publish("orders", {"n": n}, key="k" if n % 2 else "other")
        world.run_until_idle()
        values = [event.value["n"] for event in world.published("seen")]
        assert [letter.position.offset for letter in world.dead_letters("shop.handle")] == [3]
    assert [n for n in values if n % 2] == [1, 5, 7, 9, 11, 13, 15]
    assert [n for n in values if not n % 2] == [0, 2, 4, 6, 8, 10, 12, 14]
