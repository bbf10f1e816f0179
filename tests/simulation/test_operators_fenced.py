"""What an operator asks for lands only while the node it is asked of owns the partition."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace import App, DeadLetter, Event, ParkKey, ParkPartition, Retry
from headrace.delivery.positions import claim
from headrace.model.effects import Change, Delete, Space
from headrace.model.errors import Fenced
from headrace.model.record import Position
from headrace.testing.world import World

SPACES = (Space.POSITIONS, Space.DEAD, Space.PARKED, Space.PARKED_KEYS, Space.TROUBLE)
Wish = Callable[[World], object]
Ends = DeadLetter | ParkKey | ParkPartition


def rows(world: World) -> dict[Space, list[tuple[bytes, bytes]]]:
    return {space: world._lives.rows_of(space) for space in SPACES}


@pytest.mark.parametrize(
    ("ends", "wish"),
    [
        (DeadLetter(), lambda world: world.redrive("shop.handle")),
        (ParkKey(), lambda world: world.redrive("shop.handle", key="a")),
        (ParkKey(), lambda world: world.discard("shop.handle", key="a")),
        (ParkPartition(), lambda world: world.redrive("shop.handle")),
        (ParkPartition(), lambda world: world.discard("shop.handle")),
        (DeadLetter(), lambda world: world.reset("shop.handle")),
    ],
)
def test_rows_of_a_partition_that_somebody_else_has_claimed_stay_as_they_are(
    ends: Ends, wish: Wish
) -> None:
    app = App("shop")
    orders = app.stream("orders", partitions=1)

    @app.function(orders, retry=Retry(attempts=1), on_failure=ends)
    def handle(event: Event[int]) -> None:
        raise ValueError("always")

    with World(app) as world:
        world.publish("orders", 1, key="a")
        world.run_until_idle()
        lives = world._lives
        # Another node, of which this one has not heard.
        lives.loop.drive(
            claim(
                lives.storage,
                lives.broker,
                function="shop.handle",
                stream="orders",
                partition=0,
                start="earliest",
            )
        )
        before = rows(world)
        with pytest.raises(Fenced):
            wish(world)
        after = rows(world)
        for space in SPACES[1:]:
            assert after[space] == before[space]


def test_a_letter_that_somebody_discards_meanwhile_is_not_redriven() -> None:
    app = App("shop")
    orders = app.stream("orders", partitions=1)

    @app.function(orders, retry=Retry(attempts=1), on_failure=DeadLetter())
    def handle(event: Event[int]) -> None:
        raise ValueError("always")

    with World(app) as world:
        world.publish("orders", 1, key="a")
        world.run_until_idle()
        storage = world._lives.storage

        def discard(moment: str) -> None:
            """Between the look at the letter and the change that redrives it."""
            storage.faults = None
            ((key, _),) = world._lives.rows_of(Space.DEAD)
            storage._land(Change(deletes=(Delete(Space.DEAD, key),)))

        storage.faults = discard
        assert world.redrive("shop.handle", positions=[Position("orders", 0, 0)]) == 0
        world.run_until_idle()
        assert rows(world)[Space.PARKED] == rows(world)[Space.DEAD] == []
