"""A shop that replaces its old system: route by route, customer by customer, behind one address."""

from __future__ import annotations

import msgspec

from headrace import App, Event, Http, Legacy, Reply, Request

OLD = "http://127.0.0.1:8099"

app = App("shop", owner="shop")


@app.function(
    Http("GET", "/prices/{customer}", legacy=Legacy(OLD, share=0.5, sticky="path.customer"))
)
def price(event: Event[dict[str, str]]) -> dict[str, str]:
    """Half of the customers are served here; raise or lower `share` to move them."""
    return {"customer": event.value["customer"], "system": "new"}


def add_tenant(request: Request) -> Request | Reply:
    """The old system wants a tenant, and is not to be asked for what it should not tell."""
    if request.path.startswith("/internal"):
        return Reply({"error": "not from outside"}, status=403)
    request.headers["x-tenant"] = "shop"
    return request


def in_new_words(reply: Reply) -> Reply:
    """The old system answers in its own words; clients hear ours."""
    found = msgspec.json.decode(reply.body)
    return Reply({"system": found["sys"], "tenant": found["tnt"]}, status=reply.status)


app.proxy("/old", upstream=OLD, before=add_tenant, after=in_new_words, timeout="5s")
