"""A shop's event bus: rules set functions off, feed an archive, and tell a partner over HTTP."""

from typing import Any

from headrace import App, Event
from headrace.bus import HttpTarget, Rule

app = App("desk", owner="operations")

bus = app.bus("shop.events", retention_age="30d")
archive = app.stream("shop.archive", retention_age="365d")
tickets = app.stream("tickets")
fraud = app.stream("fraud")

LARGE = {
    "source": ["shop.checkout"],
    "detail-type": ["Order Placed"],
    "detail": {"total": [{"numeric": [">=", 500]}]},
}
REFUSED = {
    "source": [{"prefix": "shop."}],
    "$or": [
        {"detail": {"state": ["refused"]}},
        {"detail": {"reason": [{"wildcard": "*stolen*"}], "country": [{"anything-but": "DE"}]}},
    ],
}
PARTNER = HttpTarget("https://partner.example.com/orders", headers={"x-shop": "desk"})

# Everything that happened in the shop is kept for a year, and can be replayed.
app.forward(Rule({"source": [{"prefix": "shop."}]}, bus=bus), to=archive, name="keep")

# The partner hears of large orders, in its own words.
app.forward(
    Rule(
        LARGE,
        bus=bus,
        paths={"id": "$.detail.id", "total": "$.detail.total"},
        template='{"text": "Order <id> over <total> euro", "order": <id>}',
    ),
    to=PARTNER,
    name="tell_partner",
)


@app.function(Rule(LARGE, bus=bus, path="$.detail"), output=tickets)
def greet(event: Event[dict[str, Any]]) -> dict[str, Any]:
    """Somebody calls a customer who has ordered a lot."""
    return {"call": event.value["customer"], "about": event.value["id"]}


@app.function(Rule(REFUSED, bus=bus), output=fraud)
def suspect(event: Event[dict[str, Any]]) -> dict[str, Any]:
    """What was refused is looked at."""
    return {"id": event.value["detail"]["id"], "from": event.value["source"]}
