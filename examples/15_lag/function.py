"""A ledger that is cheap to write in bulk: nothing runs until enough is there, then it is drained."""

from __future__ import annotations

from typing import Any

from headrace import App, Consumer, Context
from headrace.sources import Lag

app = App("books", owner="accounting")
payments = app.stream("payments", partitions=4)
totals = app.stream("totals")


@app.function(Lag("payments", thresholds={0: 0, 100: 1, 1_000: 4}, lifespan="5m"))
def book(consumer: Consumer[Any], context: Context) -> None:
    """Fetch until nothing is there; positions, sums and outputs land together at each commit."""
    while batch := consumer.fetch(200):
        amount = sum(event.value["amount"] for event in batch)
        context.state["total"] = context.state.get("total", 0) + amount
        context.publish(totals, {"events": len(batch), "amount": amount})
        consumer.commit()
