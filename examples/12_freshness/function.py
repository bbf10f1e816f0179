"""What did not happen: a sensor that went silent, an order that nobody paid."""

from __future__ import annotations

from typing import Any

from headrace import App, Event
from headrace.sources import Missing, Silence

app = App("watch", owner="operations")
readings = app.stream("readings", partitions=2)
orders = app.stream("orders", partitions=2)
payments = app.stream("payments", partitions=2)
alarms = app.stream("alarms")


@app.function(Silence("readings", after="10m", per_key=True), output=alarms)
def silent_sensor(event: Event[dict[str, Any]]) -> dict[str, str]:
    """A sensor has said nothing for ten minutes; told once, until it speaks again."""
    return {"alarm": "silent", "of": event.value["key"]}


@app.function(Missing("orders", "payments", within="1h"), output=alarms)
def unpaid_order(event: Event[dict[str, Any]]) -> dict[str, str]:
    """An order has been there for an hour, a payment of its key has not."""
    return {"alarm": "unpaid", "of": event.value["key"]}
