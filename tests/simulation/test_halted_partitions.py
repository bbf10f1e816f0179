"""Why a partition stands still is told, as long as it does."""

from __future__ import annotations

import pytest

from headrace import App, Event
from headrace.delivery.partition.worker import PartitionWorker
from headrace.delivery.positions import claim, position_key
from headrace.model.effects import Change, Put, Space
from headrace.testing import World


def shop() -> App:
    app = App("shop")
    orders, done = app.stream("orders", partitions=2), app.stream("done")

    @app.function(orders, output=done)
    def price(event: Event[int]) -> int:
        return event.value

    return app


def state_of(world: World, partition: int) -> str:
    return str(world._lives.node.supervisor.state_of("shop.price", "orders", partition))


def go_on(world: World) -> None:
    """Let a minute pass. A world ends a test whose partitions fail; here they are meant to."""
    world._lives.loop.run_for(60)
    world._lives.failures.clear()


def test_a_partition_whose_position_is_damaged_halts_and_says_why_and_its_neighbour_goes_on() -> (
    None
):
    with World(shop()) as world:
        world.publish("orders", *range(20), key=str)
        world.run_until_idle()
        row = position_key("shop.price", "orders", 1)
        world._drive(world._lives.storage.apply(Change(puts=(Put(Space.POSITIONS, row, b"\xc1"),))))
        world.crash()
        go_on(world)
        world.publish("orders", *range(20, 40), key=str)
        world.run_until_idle()

        assert state_of(world, 1).startswith("halted: Corrupt: ")
        assert state_of(world, 0) == "running"
        assert 20 < len(world.values("done")) < 40
        assert ("shop.price", ("orders",), 1) in world._lives.node.supervisor.halted


def test_a_partition_that_failed_says_so_until_it_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = 1
    real = PartitionWorker.run

    async def run(self: PartitionWorker) -> None:
        nonlocal failing
        if self.partition == 1 and failing:
            failing -= 1
            raise OSError("a fault of its own")
        await real(self)

    monkeypatch.setattr(PartitionWorker, "run", run)
    with World(shop()) as world:
        assert state_of(world, 1) == "halted: OSError: a fault of its own; restarts soon"
        go_on(world)
        world.publish("orders", *range(20), key=str)
        world.run_until_idle()

        assert state_of(world, 1) == "running"
        assert len(world.values("done")) == 20


def test_a_partition_that_another_owner_took_says_so_until_it_is_claimed_anew() -> None:
    with World(shop()) as world:
        lives = world._lives
        taking_over = claim(
            lives.storage,
            lives.broker,
            function="shop.price",
            stream="orders",
            partition=1,
            start="earliest",
        )
        world._drive(taking_over)
        world.publish("orders", *range(20), key=str)
        told = set()
        for _ in range(200):
            lives.loop.run_for(0.01)
            told.add(state_of(world, 1))
        go_on(world)

        assert any("another owner has claimed the partition" in each for each in told)
        assert state_of(world, 1) == "running"
        assert len(world.values("done")) == 20
