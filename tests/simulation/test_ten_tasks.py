"""Ten tasks that every system of this field has, as an author writes them, run on one app in a world.

Each is as short as the API lets it be: a change that makes one of them longer shows here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace import App, Batch, Concurrency, Context, Cron, Event, Http, Output, Retry, Webhook
from headrace.testing import World, signed
from headrace.webhooks import Stripe
from headrace.windows import ClosedWindow, TumblingWindow


class Order(msgspec.Struct):
    id: str
    amount: int


app = App("shop")
orders = app.stream("orders", value=Order)
reminders = app.queue("reminders", value=str)
jobs = app.queue("jobs", value=int)
parts = app.stream("parts", value=int)
totals = app.store("totals", int, default=0)
minutes = app.stream("minutes", value=ClosedWindow)
stored: list[Order] = []
called: list[tuple[str, int | str]] = []


# 1: a stream in batches
@app.function(orders, batch_size=500, batch_window="1s")
def store(events: Batch[Order]) -> None:
    stored.extend(event.value for event in events)


# 2: state by key, exact
@app.function(orders)
def add_up(event: Event[Order], context: Context) -> None:
    context.store(totals)[event.key] += event.value.amount


# 3: dead letters, and `headrace dead redrive shop.charge`
@app.function(orders, retry=Retry(attempts=8, give_up_on=ValueError))
def charge(event: Event[Order]) -> None:
    called.append(("charge", event.value.id))


# 4: a route with validation
@app.function(Http("POST", "/orders"), output=orders)
def order(event: Event[Order]) -> Output[Order]:
    return Output(event.value, key=event.value.id)


# 5: a signed webhook, each delivery once
HOOK = Webhook("/hooks/stripe", Stripe("STRIPE_HOOK"))


@app.function(HOOK)
def paid(event: Event[dict[str, Any]]) -> None:
    called.append(("paid", event.value["amount"]))


# 6: a cron schedule with a zone
@app.function(Cron("0 8 * * 1-5", tz="Europe/Berlin"))
def report() -> None:
    called.append(("report", 0))


# 7: a count by window
@app.window(orders, TumblingWindow("1m"), output=minutes, idle="10s")
def count(so_far: int | None, event: Event[Order]) -> int:
    return (so_far or 0) + 1


# 8: fan-out, at most 10 at a time
@app.function(jobs, output=parts)
def split(event: Event[int]) -> Iterator[int]:
    yield from range(event.value)


@app.function(parts, order="none", parallelism=10, concurrency=Concurrency(10))
def part(event: Event[int]) -> None:
    called.append(("part", event.value))


# 9: a delayed job that can be cancelled
@app.function(Http("POST", "/carts"))
def cart(event: Event[Order], context: Context) -> None:
    context.publish(reminders, event.value.id, delay="24h", id=event.value.id)


@app.function(Http("POST", "/carts/bought"))
def bought(event: Event[Order], context: Context) -> None:
    context.cancel(reminders, event.value.id)


# 10: a test of it
def test_the_tasks_are_done() -> None:
    stored.clear()
    called.clear()
    secrets = {"STRIPE_HOOK": "known to both sides"}
    with World(app, secrets=secrets) as world:
        for number in range(3):
            assert world.ask("POST", "/orders", {"id": str(number), "amount": 5}).status == 200
        assert world.ask("POST", "/orders", {"id": 1, "amount": 5}).status == 400
        world.publish(orders, Order("a", 7), key="ada")
        world.fail(charge, ValueError("no"))
        world.advance("2m")
        assert len(stored) == 4
        assert world.store(totals)["ada"] == 7
        assert [letter.cause.kind for letter in world.dead_letters(charge)] == ["ValueError"]
        assert world.redrive(charge) == 1
        paying = {"id": "evt_1", "amount": 7}
        for _ in range(2):
            proof = signed(HOOK, paying, secrets, at=world.now)
            assert world.ask("POST", "/hooks/stripe", paying, **proof).status == 202
        world.publish(jobs, 4)
        for cart_id in ("one", "two"):
            world.ask("POST", "/carts", {"id": cart_id, "amount": 1})
        world.ask("POST", "/carts/bought", {"id": "one", "amount": 1})
        world.advance("3d")
        assert [each for each in called if each[0] == "paid"] == [("paid", 7)]
        assert sorted(each[1] for each in called if each[0] == "part") == [0, 1, 2, 3]
        assert sum(window.value for window in world.values(minutes)) == 4
        assert world.values(reminders) == ["two"]
        assert ("report", 0) in called
        assert world.dead_letters() == []
