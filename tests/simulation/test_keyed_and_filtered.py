"""Lanes and patterns on the whole engine, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace import App, Batch, Context, DeadLetter, Event, ParkKey, Retry
from headrace.testing.world import World

Order = Event[dict[str, int]]


def shop(fails: Callable[[Order], object], *, in_batches: bool = False, **options: Any) -> App:
    """Orders that are seen, each as it is, unless `fails` says otherwise."""
    app = App("shop")
    orders, seen = app.stream("orders"), app.stream("seen")

    def see(event: Order, context: Context) -> None:
        if fails(event):
            raise RuntimeError("not now")
        context.publish(seen, event.value, key=event.key)

    def handle(event: Order, context: Context) -> None:
        see(event, context)

    def handle_all(events: Batch[dict[str, int]], context: Context) -> None:
        for event in events:
            see(event, context)

    source = orders.read(pattern=options.pop("pattern", None))
    app.function(source, name="handle", **options)(handle_all if in_batches else handle)
    return app


def failing(times: int, key: str, number: int) -> Callable[[Order], bool]:
    """Fails on one event, so many times."""
    left = [True] * times
    return lambda event: (
        (event.key, event.value["n"]) == (key, number) and bool(left and left.pop())
    )


def seen(world: World) -> list[int]:
    return [event.value["n"] for event in world.published("seen")]


def test_a_failing_key_does_not_hold_up_its_neighbours_and_keeps_its_order() -> None:
    app = shop(
        failing(2, "slow", 0),
        order="key",
        parallelism=4,
        batch_size=1,
        retry=Retry(attempts=5, jitter=False),
    )
    with World(app) as world:
        for n in range(3):
            world.publish("orders", {"n": n}, key="slow")
            world.publish("orders", {"n": n + 10}, key="quick")
        world.run_until_idle()
        values = seen(world)
    assert [n for n in values if n < 10] == [0, 1, 2]
    assert [n for n in values if n >= 10] == [10, 11, 12]
    assert values.index(12) < values.index(0)


def test_a_parked_key_is_redriven_in_order_among_lanes() -> None:
    broken = {"bad"}
    app = shop(
        lambda event: event.key in broken,
        order="key",
        parallelism=3,
        batch_size=2,
        retry=Retry(attempts=1),
        on_failure=ParkKey(),
    )
    with World(app) as world:
        for n in range(4):
            world.publish("orders", {"n": n}, key="bad")
            world.publish("orders", {"n": n + 10}, key="good")
        world.run_until_idle()
        assert seen(world) == [10, 11, 12, 13]
        world.crash()
        broken.clear()
        world.redrive("shop.handle")
        world.run_until_idle()
        assert [n for n in seen(world) if n < 10] == [0, 1, 2, 3]


def test_what_a_pattern_does_not_mean_counts_as_done() -> None:
    app = shop(
        lambda event: False,
        pattern={"value": {"n": [{"numeric": [">", 5]}]}},
        on_failure=DeadLetter(),
    )
    with World(app) as world:
        for n in (1, 9, 2, 8, 3):
            world.publish("orders", {"n": n})
        world.run_until_idle()
        assert seen(world) == [9, 8]
        assert world.lag() == 0


def test_a_key_that_failed_in_a_batch_is_tried_again_before_its_followers() -> None:
    app = shop(
        failing(3, "slow", 1),
        order="key",
        parallelism=4,
        batch_size=20,
        retry=Retry(attempts=5, jitter=False),
    )
    with World(app) as world:
        for n in range(6):
            world.publish("orders", {"n": n}, key="slow")
            world.publish("orders", {"n": n + 10}, key="quick")
        world.run_until_idle()
        values = seen(world)
        assert world.dead_letters("shop.handle") == []
    assert [n for n in values if n < 10] == [0, 1, 2, 3, 4, 5]
    assert [n for n in values if n >= 10] == [10, 11, 12, 13, 14, 15]


def test_halves_of_a_failing_batch_do_not_run_a_key_beside_itself() -> None:
    app = shop(
        lambda event: event.value["n"] == 3,
        in_batches=True,
        order="key",
        parallelism=4,
        batch_size=16,
        retry=Retry(attempts=2, jitter=False),
    )
    with World(app) as world:
        for n in range(16):
            world.publish("orders", {"n": n}, key="k" if n % 2 else "other")
        world.run_until_idle()
        values = seen(world)
        assert [letter.position.offset for letter in world.dead_letters("shop.handle")] == [3]
    assert [n for n in values if n % 2] == [1, 5, 7, 9, 11, 13, 15]
    assert [n for n in values if not n % 2] == [0, 2, 4, 6, 8, 10, 12, 14]
