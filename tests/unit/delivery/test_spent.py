"""A trigger's own stream is cleared of what is finished and old, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace import App, Event, Every, Retry
from headrace.delivery.spent import clear_spent
from headrace.keepers.brokers.base import Extent
from headrace.testing import World

STREAM = "_clock.tick.every.0"


def clock(broken: Sequence[bool] = ()) -> App:
    app = App("clock")
    ticks = app.stream("ticks")

    @app.function(Every("1h"), output=ticks, retry=Retry(attempts=1), breaker=None)
    def tick(event: Event[Any]) -> str:
        if broken:
            raise ValueError("broken")
        return event.id

    return app


def clear(world: World) -> Extent:
    lives = world._lives
    work = clear_spent(
        lives.node.dispatcher.functions.values(), storage=lives.node.door, broker=lives.broker,
        clock=lives.clock,
    )  # fmt: skip
    world._drive(work)
    found: Extent = world._drive(lives.broker.extent(STREAM, 0))
    return found


def test_what_is_finished_is_kept_for_a_day() -> None:
    with World(clock()) as world:
        world.advance("23h")
        assert clear(world).low == 0
        world.advance("49h")
        extent = clear(world)
        assert 47 <= extent.low <= 48
        assert extent.high == 72
        world.crash()
        world.advance("10h")
        assert len(set(world.values("ticks"))) == 82
        assert world.lag() == 0


def test_what_is_not_finished_stays_however_old_it_is() -> None:
    with World(clock()) as world:
        world.advance("10h")
        world._lives.node.dispatcher.pause("clock.tick")
        world.advance("240h")
        assert clear(world).low == 10
        world._lives.node.dispatcher.resume("clock.tick")
        world.run_until_idle()
        assert len(world.values("ticks")) == 250


def test_a_dead_letter_outlives_its_event() -> None:
    broken = [True]
    with World(clock(broken)) as world:
        world.advance("3h")
        broken.clear()
        world.advance("72h")
        assert clear(world).low > 3
        assert len(world.dead_letters("clock.tick")) == 3
        world.redrive("clock.tick")
        world.run_until_idle()
        assert len(set(world.values("ticks"))) == 75


def test_a_stream_that_others_may_read_keeps_what_its_author_says() -> None:
    with World(clock()) as world:
        world.advance("100h")
        clear(world)
        assert world._drive(world._lives.broker.extent("ticks", 0)).low == 0
