"""A table sets a function off: every order that is inserted, changed or deleted."""

from __future__ import annotations

from typing import Any

from headrace import App, Event
from headrace.sources import SqlTable

app = App("billing", owner="finance")
invoices = app.stream("invoices", partitions=2)


@app.function(SqlTable("sqlite:///shop.db", "orders"), output=invoices)
def invoice(event: Event[dict[str, Any]]) -> dict[str, Any] | None:
    """An order that becomes paid is invoiced, once."""
    before: dict[str, Any] = event.value["before"] or {}
    after: dict[str, Any] = event.value["after"] or {}
    if after.get("state") != "paid" or before.get("state") == "paid":
        return None
    return {"order": after["id"], "total": after["total"]}
