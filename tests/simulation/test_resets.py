"""A function that is sent back keeps what is parked, and why."""

from __future__ import annotations

from headrace import App, Context, Event, ParkKey, Retry
from headrace.testing import World


def test_a_reset_keeps_why_a_key_is_parked_and_the_order_of_its_events() -> None:
    app = App("a")
    numbers, done = app.stream("numbers"), app.stream("done")
    is_mended: list[bool] = []

    @app.function(numbers, batch_size=1, order="key", retry=Retry(attempts=1), on_failure=ParkKey())
    def take(event: Event[int], context: Context) -> None:
        if event.value == 1 and not is_mended:
            raise ValueError("why")
        context.publish(done, event.value)

    with World(app) as world:
        for value in range(3):
            world.publish(numbers, value, key="k")
        world.publish(numbers, 3, key="other")
        world.run_until_idle()
        before = world.parked()
        world.reset("a.take")
        world.run_until_idle()
        (after,) = world.parked()
        assert (after.cause, after.since) == (before[0].cause, before[0].since)
        assert "why" in after.cause
        assert (before[0].events, after.events) == (2, 3)
        is_mended.append(True)
        world.redrive("a.take")
        world.run_until_idle()
        assert world.values(done) == [0, 3, 3, 0, 1, 2]
        assert (world.parked(), world.lag()) == ([], 0)


def test_a_reset_forward_leaves_what_is_parked() -> None:
    app = App("a")
    numbers = app.stream("numbers")

    @app.function(numbers, batch_size=1, retry=Retry(attempts=1), on_failure=ParkKey())
    def take(event: Event[int]) -> None:
        raise ValueError("why")

    with World(app) as world:
        world.publish(numbers, 1, key="k")
        world.publish(numbers, 2, key="k")
        world.run_until_idle()
        before = world.parked()
        world.reset("a.take", "latest")
        world.run_until_idle()
        assert world.parked() == before
