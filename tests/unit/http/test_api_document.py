"""The OpenAPI document of the platform's own paths, and the query parameters they take."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Event
from headrace.http.api.api_document import QUERY, document_of
from headrace.http.server.route_resolver import route_table
from headrace.model.route import API_PREFIX
from headrace.testing import World

shop = App("shop")
orders = shop.queue("orders")


@shop.function(orders)
def sell(event: Event[Any]) -> None: ...


def test_every_path_behind_the_prefix_is_described_once() -> None:
    document = document_of(route_table())
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described == {row for row in route_table().patterns() if row[1].startswith(API_PREFIX)}
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for operation in operations)


def test_every_query_parameter_means_one_thing() -> None:
    taken = {name for _, path, route in route_table().rows() for name in route.query or ()}
    assert taken == set(QUERY)


def test_a_node_gives_its_document() -> None:
    with World(shop) as world:
        answer = world.ask("GET", f"{API_PREFIX}/openapi.json")
        assert answer.status == 200
        assert answer.body["openapi"] == "3.1.0"
        redrive = answer.body["paths"][f"{API_PREFIX}/dead/{{function}}/redrive"]["post"]
        assert redrive["security"] == [{"token": []}]
        schema = redrive["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Chosen"}


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/queues/orders?dely=5", "no query parameter `dely` here; did you mean `delay`"),
        ("POST", "/queues/orders?delay=5&delay=6", "`delay` is given twice"),
        ("GET", "/lag?limit=5", "no query parameter `limit` here; it takes `function`"),
        ("GET", "/map?x", "no query parameter `x` here; it takes none"),
        ("POST", "/functions/shop.sell?delay=5", "no query parameter `delay` here; it takes none"),
    ],
)
def test_a_query_parameter_that_nobody_reads_is_refused(method: str, path: str, said: str) -> None:
    with World(shop) as world:
        refused = world.ask(method, API_PREFIX + path, {} if method == "POST" else None)
        assert refused.status == 400
        assert said in refused.body["detail"]
        world.run_until_idle()
        assert world.published(orders) == []


def test_a_probe_may_say_what_it_likes() -> None:
    with World(shop) as world:
        for path in ("/healthz?from=probe", "/readyz?x=1&x=2", "/metrics?job=node", "/?utm=1"):
            assert world.ask("GET", path).status == 200
