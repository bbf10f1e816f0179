"""Where an event is, as operators are told."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Event, ParkKey, Retry
from headrace.admin.explain import Explanation
from headrace.errors import Unknown
from headrace.sources import Debezium
from headrace.testing import World


def explained(world: World, stream: str, offset: int) -> Explanation:
    lives = world._lives
    found: Explanation = world._drive(lives.node.services.explainer.explain(stream, 0, offset))
    return found


def test_an_empty_partition_is_called_empty() -> None:
    app = App("shop")
    orders = app.stream("orders")
    with World(app) as world:
        with pytest.raises(Unknown, match="it is empty, and the next event will be 0"):
            explained(world, "orders", 0)
        world.publish(orders, 1)
        world.publish(orders, 2)
        with pytest.raises(Unknown, match="it has 0 to 1"):
            explained(world, "orders", 2)


def test_a_change_that_is_parked_under_its_rows_key_is_found_there() -> None:
    app = App("shop")
    captured = app.stream("captured")

    @app.function(
        captured.read(changes=Debezium(key_columns="id")),
        on_failure=ParkKey(),
        retry=Retry(attempts=1),
    )
    def take(event: Event[dict[str, Any]]) -> None:
        if event.value["after"]["id"] == 1:
            raise ValueError("not this one")

    with World(app) as world:
        for number in (1, 2, 1):
            world.publish(captured, {"op": "c", "after": {"id": number}})
        world.run_until_idle()
        found = [explained(world, "captured", offset).functions[0] for offset in range(3)]
        assert [each.status for each in found] == ["parked", "committed", "parked"]
        assert found[0].blocked_by == "its key `1` is parked"
        assert [parked.key for parked in world.parked()] == ["1"]


def test_what_was_given_up_is_told_with_its_attempts_and_its_cause() -> None:
    app = App("shop")
    orders = app.stream("orders")

    @app.function(orders, retry=Retry(attempts=3, initial_delay=0.01))
    def fail(event: Event[int]) -> None:
        raise ValueError("not this one")

    with World(app) as world:
        world.publish(orders, 1)
        world.run_until_idle()
        (found,) = explained(world, "orders", 0).functions
        assert (found.status, found.attempts) == ("dead", 3)
        assert found.cause == "ValueError: not this one"
