"""The road from stream to commit, in every shape the table asks for; each function has its stream."""

import time
from typing import Any

import msgspec

from headrace import App, Batch, Context, Event, Scaling

app = App("road")


class Order(msgspec.Struct):
    """What the events hold; about 200 bytes of JSON."""

    id: str
    customer: str
    amount: float
    items: list[int]
    note: str


def _declare(size: int) -> None:
    touched = app.stream(f"touch_{size}", value=Order)
    before = app.stream(f"before_{size}", value=Order)
    copied = app.stream(f"copy_{size}", value=Order)
    copies = app.stream(f"copies_{size}", value=Order)

    def touch(events: Batch[Order]) -> None:
        large = 0
        for event in events:
            large += event.value.amount > 100

    def copy(events: Batch[Order], context: Context) -> None:
        for event in events:
            context.publish(copies, event.value, key=event.key)

    app.function(touched, name=f"touch_{size}", batch_size=size)(touch)
    app.function(before, name=f"before_{size}", batch_size=size, commit="before")(touch)
    app.function(copied, name=f"copy_{size}", batch_size=size)(copy)


_declare(128)
_declare(1_000)

singles = app.stream("single", partitions=16, value=Order)
alone = app.stream("alone", value=Order)
stamped = app.stream("stamped")
delays = app.stream("delays", value=list[float])
_delays: list[float] = []


@app.function(singles, batch_size=1, scaling=Scaling(max=2))
def single(event: Event[Any]) -> None:
    """Do nothing, one event at a time, 16 partitions side by side."""


@app.function(alone, name="alone", batch_size=100)
def nothing(event: Event[Any]) -> None:
    """Do nothing; for the latency of single events."""


@app.function(stamped, name="stamp", batch_size=100)
def stamp(event: Event[dict[str, Any]], context: Context) -> None:
    """Note how long after its sending an event is here; one without a time asks for all of them."""
    if sent := event.value.get("sent"):
        _delays.append(time.time() - sent)
    else:
        context.publish(delays, _delays)
