"""What a strict type checker must refuse. Checked by `make check`, never run.

Each line carries the error that it must have: a check that finds one unused fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace import App, Batch, Context, Event, Http, Output, Retry
from headrace.testing import World
from headrace.windows import TumblingWindow


class Order(msgspec.Struct):
    amount: int


class Total(msgspec.Struct):
    total: int


app = App("shop")
orders = app.stream("orders", value=Order)
totals = app.stream("totals", value=Total)
jobs = app.queue("jobs", value=Order)


@app.function(orders)  # type: ignore[arg-type]
def of_another_type(events: Batch[Total]) -> None: ...


@app.function(orders)  # type: ignore[arg-type]
def of_no_event() -> None: ...


@app.function(orders, batchsize=5)  # type: ignore[call-overload,untyped-decorator]
def of_an_unknown_option(events: Batch[Order]) -> None: ...


@app.window(orders, TumblingWindow("1m"), output=totals, latness="5s")  # type: ignore[call-arg]
def of_an_unknown_window_option(so_far: int | None, event: Event[Order]) -> int:
    return 0


def publishes(context: Context) -> None:
    context.publish(totals, "x")  # type: ignore[misc]
    context.publish(totals, Total(1), delay="5m")  # type: ignore[call-overload]
    context.publish(totals, Total(1), key=5)  # type: ignore[call-overload]


Retry(retry_on=5)  # type: ignore[arg-type]
World(app).no_such_method()  # type: ignore[attr-defined]


@app.function(orders, output=totals)  # type: ignore[arg-type]
def of_another_output(event: Event[Order]) -> Order:
    return event.value


@app.function(orders, output=totals)  # type: ignore[arg-type]
def of_another_output_in_parts(events: Batch[Order]) -> Iterator[Order]:
    for event in events:
        yield event.value


@app.function(Http("POST", "/orders"), output=totals)  # type: ignore[arg-type]
async def of_another_output_by_a_route(event: Event[Order]) -> Output[Order]:
    return Output(event.value)


@app.window(orders, TumblingWindow("1m"), output=totals)  # type: ignore[arg-type]
def of_another_fold(so_far: int | None, event: Event[Total]) -> int:
    return (so_far or 0) + event.value.total
