"""An order desk over HTTP: typed requests, answers with a status, and work that may take its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace import App, Bearer, Context, Cors, Event, Http, PerClient, Reply, Request, Retry

app = App("desk", owner="shop")


class Order(msgspec.Struct):
    """What a customer wants."""

    item: str
    quantity: int


class Search(msgspec.Struct):
    """What somebody looks for."""

    prefix: str = ""
    limit: int = 10


kept = app.store("orders", Order)
PAGES = Cors("https://shop.example")


@app.function(Http("PUT", "/desk/orders/{number:int}", cors=PAGES, rate=PerClient(20, per="1s")))
def place(event: Event[Order], request: Request, context: Context) -> Reply:
    """Keep an order, and say where it is."""
    number = request.params["number"]
    orders = context.store(kept)
    is_new = str(number) not in orders
    orders[str(number)] = event.value
    return Reply({"number": number}, status=201 if is_new else 200)


@app.function(Http("GET", "/desk/orders/{number:int}", cors=PAGES))
def show(event: Event[Any], context: Context) -> Reply:
    """Show an order."""
    found = context.store(kept).get(str(event.value["number"]))
    return Reply({"error": "no such order"}, status=404) if found is None else Reply(found)


@app.function(Http("GET", "/desk/teas"))
def search(event: Event[Search]) -> list[str]:
    """Teas whose names begin with what was typed."""
    teas = ["assam", "darjeeling", "dianhong", "earl grey"]
    wanted = event.value
    return [tea for tea in teas if tea.startswith(wanted.prefix)][: wanted.limit]


@app.function(Http("POST", "/desk/orders/{number:int}/brewing", mode="live", cors=PAGES))
def brew(request: Request, context: Context) -> Iterator[str]:
    """Say how far the tea is, while it is made; the answer ends when it is kept that it was."""
    yield "water boils"
    yield "leaves are in"
    yield "tea is ready"
    context.state[str(request.params["number"])] = "brewed"


@app.function(
    Http(
        "POST",
        "/desk/{customer}/invoices",
        mode="async",
        auth=Bearer("invoices:write"),
        key="path.customer",
    ),
    retry=Retry(attempts=3),
)
def invoice(event: Event[Order], context: Context) -> None:
    """Write invoices: kept first, one after the other for each customer."""
    context.state[event.key] = context.state.get(event.key, 0) + 1
