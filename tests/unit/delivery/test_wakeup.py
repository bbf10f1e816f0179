"""How a worker sleeps: it wakes for what is new, never for what it knows already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from headrace import App, Batch, Context, Event, ParkPartition, Retry
from headrace.delivery.partition.wakeup import Wakeup
from headrace.environment.randomness import SeededEntropy
from headrace.environment.tasks import Tasks
from headrace.model.event import Event as Fact
from headrace.testing import World
from headrace.testing.faults import Weather
from headrace.testing.hosts import Hosts
from headrace.testing.virtual_time import VirtualClock, VirtualLoop


class Source:
    """A reader that never has anything."""

    def watch(self, waiter: asyncio.Future[None]) -> None:
        assert not waiter.done()


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    found = VirtualLoop()
    yield found
    found.close()


def nap(loop: VirtualLoop, seconds: float, *commits: float) -> float:
    """How long a wait lasts beside commits that end after so long."""
    clock = VirtualClock(loop)

    async def sleep() -> float:
        tasks = Tasks(lambda name, error: None)
        waiting = Wakeup()
        running = [tasks.start(clock.sleep(each), name="commit") for each in commits]
        await clock.sleep(0.5)
        began = clock.monotonic()
        # Twice: what the first wait leaves behind must not wake the second.
        await waiting.wait(0.25, [Source()], running)  # type: ignore[list-item] # waits only
        await waiting.wait(seconds, [Source()], running)  # type: ignore[list-item] # waits only
        took = clock.monotonic() - began
        await tasks.close()
        return took

    return loop.drive(sleep())


def test_a_wait_that_has_ended_does_not_wake_the_next(loop: VirtualLoop) -> None:
    assert nap(loop, 10.0) == pytest.approx(10.25)


def test_a_commit_that_ends_wakes(loop: VirtualLoop) -> None:
    assert nap(loop, 10.0, 3.0) == pytest.approx(2.5)


def test_a_commit_that_has_ended_behind_one_that_has_not_does_not(loop: VirtualLoop) -> None:
    assert nap(loop, 10.0, 5.0, 0.1) == pytest.approx(4.5)


def _failing(**options: object) -> App:
    app = App("app")

    @app.function(app.stream("in"), **options)  # type: ignore[call-overload,untyped-decorator] # by name
    def fail(event: Event[int]) -> None:
        raise ValueError

    return app


def test_a_wall_clock_set_back_a_day_does_not_put_a_retry_off_for_a_day() -> None:
    with World(_failing(retry=Retry(attempts=2, initial_delay=1.0, jitter=False))) as world:
        world.publish("in", 1)
        world.advance(0.5)
        world._lives.clock.set_back(86_400)
        world.advance("3m")

        assert len(world.dead_letters()) == 1


def test_a_wall_clock_set_forward_is_noticed() -> None:
    retry = Retry(attempts=2, initial_delay=3_600.0, max_delay=3_600.0, jitter=False)
    with World(_failing(retry=retry)) as world:
        world.publish("in", 1)
        world.advance(0.5)
        world._lives.clock.set_back(-7_200)
        world.advance("1m")

        assert len(world.dead_letters()) == 1


def test_a_backoff_is_kept_over_a_crash() -> None:
    with World(_failing(retry=Retry(attempts=3, initial_delay=60.0, jitter=False))) as world:
        world.publish("in", 1)
        world.advance(1)
        world.crash()
        world.advance(30)
        assert [one.attempt for one in world.deliveries] == [1]
        world.advance(60)
        assert [one.attempt for one in world.deliveries] == [1, 2]


def test_a_stopped_partition_is_released_by_an_operator_only() -> None:
    with World(_failing(retry=Retry(attempts=1), on_failure=ParkPartition())) as world:
        world.publish("in", 1)
        for _ in range(3):
            world.crash()
            world.advance("1d")
        assert len(world.deliveries) == 1
        assert world.redrive("app.fail") == 1
        world.advance("1d")
        assert len(world.deliveries) == 2


def test_a_log_that_is_away_now_and_then_halts_nobody() -> None:
    app = App("app")
    source, sink = app.stream("in", partitions=2), app.stream("out")

    @app.function(source, batch_size=2)
    def copy(events: Batch[int], context: Context) -> None:
        for event in events:
            context.publish(sink, event.value)

    lives = Hosts([app], seed=1, weather=Weather(SeededEntropy(1), stale_reads=0.5))
    lives.open()
    for number in range(20):
        body = [Fact(b"%d" % number, f"k{number}")]
        lives.loop.drive(lives.publish("in", body))
    lives.loop.run_for(600.0)
    held = lives.log_of("out")
    lives.close()

    assert len(held) >= 1
    assert lives.failures == []
    assert sum(1 for _, _, body in held for _ in range(body[0] & 0x0F)) == 20
