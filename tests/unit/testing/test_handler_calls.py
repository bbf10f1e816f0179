"""Handlers called by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

import headrace.testing
from headrace import App, Batch, Context, Event
from headrace.errors import Misuse, Refused, Undecodable, Unknown
from headrace.testing import Published


class Order(msgspec.Struct):
    id: int


shop = App("shop")
orders = shop.stream("orders", 4, Order)
priced = shop.stream("priced", 4)
audit = shop.external("audit", partitions=1)


@shop.function(orders)
def price(events: Batch[Order], context: Context) -> None:
    for event in events:
        context.publish(priced, {"id": event.value.id}, key=event.key)
        context.state.update("n", lambda n: n + 1, default=0)
        if event.value.id == 13:
            context.fail(event, "unlucky")


@shop.function(orders)
def refuse(event: Event[Order], context: Context) -> None:
    context.publish(priced, event.value.id)
    context.state.put("seen", True)
    context.fail(event, "no")


def test_a_handler_is_called_like_any_function() -> None:
    context = headrace.testing.context()
    price(headrace.testing.batch([Order(1), Order(2)], stream=orders, key="a"), context)
    assert context.published == [
        Published("priced", {"id": 1}, "a", partition=context.published[0].partition),
        Published("priced", {"id": 2}, "a", partition=context.published[0].partition),
    ]
    assert context.state["n"] == 2


def test_what_a_failed_event_did_is_not_seen() -> None:
    context = headrace.testing.context(state={"n": 10})
    events = headrace.testing.batch([Order(1), Order(13), Order(2)], stream=orders)
    price(events, context)
    assert [output.value["id"] for output in context.published] == [1, 2]
    assert context.state["n"] == 12
    assert context.failed == [events[1]]


def test_a_handler_of_single_events_that_fails_its_event_did_nothing() -> None:
    context = headrace.testing.context()
    refuse(headrace.testing.event(Order(1), stream=orders), context)
    assert context.published == []
    assert len(context.failed) == 1


def test_an_event_can_be_anything_an_event_can_be() -> None:
    event = headrace.testing.event(
        {"a": 1},
        key="k",
        stream="sensor",
        partition=3,
        offset=9,
        time=datetime(2026, 5, 1, tzinfo=UTC),
        headers={"h": "v"},
        type="t",
    )
    assert event.value == {"a": 1}
    assert (event.key, event.stream, event.partition, event.offset) == ("k", "sensor", 3, 9)
    assert (event.id, event.headers, event.type) == ("sensor/3/9", {"h": "v"}, "t")
    assert event.time == datetime(2026, 5, 1, tzinfo=UTC)


def test_bytes_that_cannot_be_decoded_can_be_tried_out() -> None:
    event = headrace.testing.event(raw=b"junk", stream=orders)
    with pytest.raises(Undecodable, match="orders/0/0"):
        _ = event.value


def test_offsets_of_a_batch_count_up() -> None:
    events = headrace.testing.batch(["a", "b"])
    assert [(event.value, event.offset) for event in events] == [("a", 0), ("b", 1)]


def test_state_is_a_mapping_too() -> None:
    context = headrace.testing.context(state={"a": 1})
    context.state["b"] = [2]
    assert "a" in context.state
    assert "c" not in context.state
    assert sorted(context.state) == ["a", "b"]
    assert len(context.state) == 2
    assert dict(context.state.items()) == {"a": 1, "b": [2]}
    with pytest.raises(KeyError):
        _ = context.state["c"]


def test_the_context_is_what_the_test_says() -> None:
    context = headrace.testing.context(
        attempt=3, timeout=5, remaining=1.5, seed=1, key="x", now=datetime(2026, 2, 3, tzinfo=UTC)
    )
    assert (context.attempt, context.remaining()) == (3, 1.5)
    assert context.idempotency_key == "x"
    assert context.now() == datetime(2026, 2, 3, tzinfo=UTC)
    assert context.random.random() == headrace.testing.context(seed=1).random.random()
    with pytest.raises(Misuse, match="no time zone"):
        headrace.testing.context(now=datetime(2026, 2, 3))  # noqa: DTZ001  # that is the test


def test_with_its_app_publishing_is_checked_as_in_an_instance() -> None:
    context = headrace.testing.context(app=shop, function="shop.price")
    with pytest.raises(Unknown, match="did you mean `priced`"):
        context.publish("price", 1)
    with pytest.raises(Refused, match="publishes="):
        context.publish(audit, 1)
    context.publish("priced", 1)
    assert context.published == [Published("priced", 1)]


def test_done_events_are_kept_in_order() -> None:
    context = headrace.testing.context()
    events: Batch[Any] = headrace.testing.batch([1, 2])
    for event in events:
        context.done(event)
    assert context.finished == list(events)
