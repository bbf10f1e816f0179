"""A trigger's own stream is cleared of what is finished and old, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from headrace import App, Event, Every, Retry
from headrace.admin.cleanup import clear_spent
from headrace.storage.log.base import Extent
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


def clear(world: World, stream: str = STREAM) -> Extent:
    lives = world._lives
    work = clear_spent(
        lives.node.supervisor.functions.values(),
        storage=lives.node.host_storage,
        broker=lives.broker,
        clock=lives.clock,
    )
    world._drive(work)
    found: Extent = world._drive(lives.broker.extent(stream, 0))
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
        world._lives.node.supervisor.pause("clock.tick")
        world.advance("240h")
        assert clear(world).low == 10
        world._lives.node.supervisor.resume("clock.tick")
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


def test_a_queues_message_goes_a_day_after_its_last_reader_has_finished_it() -> None:
    app = App("post")
    jobs = app.queue("jobs", outside=True)

    @app.function(jobs)
    def work(event: Event[Any]) -> None: ...

    with World(app) as world:
        for number in range(4):
            world.publish("jobs", number)
        world.run_until_idle()
        world.advance("48h")
        assert clear(world, "jobs").low == 0
        consumer = world.consumer(jobs)
        first, second, third, fourth = consumer.receive()
        for message in (first, second, fourth):
            assert consumer.acknowledge(message)
        assert clear(world, "jobs") == Extent(2, 4, clear(world, "jobs").bytes)
        assert consumer.acknowledge(third)
        world.publish("jobs", 4)
        world.run_until_idle()
        (last,) = consumer.receive()
        assert consumer.acknowledge(last)
        assert clear(world, "jobs").low == 4


def test_a_queue_with_a_retention_of_its_own_keeps_to_it() -> None:
    app = App("post")
    jobs = app.queue("jobs", retention_age=30 * 86_400.0)

    @app.function(jobs)
    def work(event: Event[Any]) -> None: ...

    with World(app) as world:
        world.publish("jobs", 1)
        world.advance("72h")
        assert clear(world, "jobs").low == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_dies_while_it_is_cleared_every_event_counts_once(seed: int) -> None:
    chance, hours = Random(seed), 0
    with World(clock(), seed=seed) as world:
        for _ in range(20):
            match chance.randrange(4):
                case 0:
                    world.crash()
                case 1:
                    world.crash(chance.choice(("commit:before-write", "commit:after-fsync")))
                case _:
                    clear(world)
            step = chance.randrange(1, 30)
            hours += step
            world.advance(f"{step}h")
        world.run_until_idle()
        ticks = world.values("ticks")
        assert len(ticks) == len(set(ticks)) == hours
        assert clear(world).low > 0
