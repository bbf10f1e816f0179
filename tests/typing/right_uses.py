"""What authors write, and what a strict type checker makes of it. Checked by `make check`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import msgspec

from headrace import App, Batch, Consumer, Context, Cron, Event, Http, Output, Request, Retry
from headrace.sources import KafkaTopic, Lag
from headrace.testing import World
from headrace.windows import TumblingWindow


class Order(msgspec.Struct):
    amount: int


class Total(msgspec.Struct):
    total: int


class Page(msgspec.Struct):
    number: int


app = App("shop")
orders = app.stream("orders", value=Order)
totals = app.stream("totals", value=Total)
anything = app.stream("anything")
jobs = app.queue("jobs", value=Order)
sums = app.store("sums", int, default=0)


@app.function(orders, batch_size=5, timeout="30s", retry=Retry(retry_on=ConnectionError))
def in_batches(events: Batch[Order], context: Context) -> None:
    for event in events:
        context.store(sums)[event.key] += event.value.amount
        context.publish(totals, Total(1))
        context.publish(jobs, event.value, delay="1d", priority=5)


@app.function(orders.read(start="latest"), output=totals)
async def one_by_one(event: Event[Order], context: Context, request: Request) -> Output[Total]:
    return Output(Total(event.value.amount), key=None)


@app.function(orders, totals, merge="time")
def merged(events: Batch[Order | Total]) -> None:
    for event in events:
        assert_type(event.value, Order | Total)


@app.function(anything)
def untyped(events: Batch, context: Context) -> None:
    for event in events:
        context.publish(anything, event.value)


@app.function(Cron("@daily"))
def daily() -> None: ...


@app.function(Lag(orders))
def in_bulk(consumer: Consumer[Order], context: Context) -> None:
    while batch := consumer.fetch(100):
        assert_type(batch, Batch[Order])
        consumer.commit()


@app.function(Http("GET", "/pages/{number:int}"))
def page(request: Request[Page]) -> int:
    return request.params.number


@app.function(KafkaTopic("orders"), output=totals)
async def from_kafka(events: Batch[Order]) -> AsyncIterator[Total]:
    yield Total(len(events))


@app.window(orders, TumblingWindow("1m"), output=anything)
def total(so_far: int | None, event: Event[Order]) -> int:
    return (so_far or 0) + event.value.amount


with World(app, seed=3) as world:
    world.publish(orders, Order(3))
    world.run_until_idle()
    assert_type(world.lag(), int)
