"""What the same event would meet again is not tried again; a run of which nothing came is `failed`."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest

from headrace import App, Batch, Context, Event, Retry
from headrace.model.event import Event as Fact
from headrace.testing import World


class Order(TypedDict):
    number: int


def _shop(handler: Any, **options: Any) -> App:
    shop = App("shop")
    orders = shop.stream("orders", value=Order)
    shop.stream("counts", value=int)
    shop.stream("notes", max_event_bytes=64)
    shop.external("others")
    options.setdefault("retry", Retry(attempts=5, initial_delay=0.01))
    shop.function(orders, name="take", **options)(handler)
    return shop


def runs_of(world: World) -> list[dict[str, Any]]:
    """What `/-/v1/invocations` tells, newest first."""
    found: list[dict[str, Any]] = world.ask("GET", "/-/v1/invocations").body["invocations"]
    return found


def touch(event: Event[Order], context: Context) -> None:
    _ = event.value


def publish_elsewhere(event: Event[Order], context: Context) -> None:
    context.publish("others", 1)


def publish_nowhere(event: Event[Order], context: Context) -> None:
    context.publish("nowhere", 1)


def publish_what_is_no_count(event: Event[Order], context: Context) -> None:
    context.publish("counts", "many")


def publish_too_much(event: Event[Order], context: Context) -> None:
    context.publish("notes", "x" * 100)


def divide(event: Event[Order], context: Context) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("handler", "value", "kind", "runs"),
    [
        (touch, b"[]", "Undecodable", 1),
        (publish_elsewhere, b'{"number":1}', "Refused", 1),
        (publish_nowhere, b'{"number":1}', "Unknown", 1),
        (publish_what_is_no_count, b'{"number":1}', "Invalid", 1),
        (publish_too_much, b'{"number":1}', "TooLarge", 1),
        (divide, b'{"number":1}', "ZeroDivisionError", 5),
    ],
)
def test_what_cannot_succeed_is_one_failed_run(
    handler: Any, value: bytes, kind: str, runs: int
) -> None:
    with World(_shop(handler)) as world:
        world.publish("orders", Fact(value))
        world.run_until_idle()
        (dead,) = world.dead_letters("shop.take")
        assert (dead.cause.kind, dead.attempts) == (kind, runs)
        told = runs_of(world)
        assert [run["outcome"] for run in told] == ["failed"] * runs


def test_a_batch_of_which_some_succeeded_is_partial() -> None:
    def each(events: Batch[Order], context: Context) -> None:
        for event in events:
            if event.value["number"] == 2:
                context.fail(event)

    with World(_shop(each, retry=Retry(attempts=1))) as world:
        world.publish("orders", *({"number": number} for number in (1, 2, 3)))
        world.run_until_idle()
        (told,) = runs_of(world)
        assert (told["outcome"], told["events"]) == ("partial", 3)


def test_a_poison_amid_a_batch_costs_its_neighbours_nothing() -> None:
    with World(_shop(touch)) as world:
        world.publish(
            "orders", *(Fact(value) for value in (b'{"number":1}', b"[]", b'{"number":3}'))
        )
        world.run_until_idle()
        assert [dead.position.offset for dead in world.dead_letters()] == [1]
        outcomes = [run["outcome"] for run in runs_of(world)]
        assert outcomes == ["succeeded", "partial"]
