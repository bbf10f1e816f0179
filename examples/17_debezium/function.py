"""Changes of rows that Debezium has captured set a function off, as a table's own do."""

from __future__ import annotations

import msgspec

from headrace import App, Event
from headrace.sources import Debezium


class Order(msgspec.Struct):
    """A row of `public.orders`, as far as this function cares."""

    id: int
    state: str = "new"
    total: float = 0.0


class OrderChange(msgspec.Struct):
    """What happened to one."""

    op: str
    before: Order | None
    after: Order | None


class Invoice(msgspec.Struct):
    """What is to be paid."""

    order: int
    total: float


app = App("invoicing", owner="finance")
captured = app.stream("shop.public.orders", partitions=4)
invoices = app.stream("invoices", partitions=2, value=Invoice)


@app.function(captured.read(changes=Debezium()), output=invoices)
def invoice(event: Event[OrderChange]) -> Invoice | None:
    """An order that becomes paid is invoiced, once."""
    before, after = event.value.before, event.value.after
    if after is None or after.state != "paid" or (before is not None and before.state == "paid"):
        return None
    return Invoice(after.id, after.total)
