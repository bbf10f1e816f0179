"""The OpenAPI document of the platform's own paths, and the query parameters they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headrace import App, Event, http
from headrace.http.api.api_document import QUERY, document_of
from headrace.http.server.route_resolver import route_table
from headrace.model.route import API_PREFIX
from headrace.testing import World

HTTP = Path(http.__file__).parent

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


def test_every_query_parameter_that_a_handler_reads_is_taken() -> None:
    """`?timeout=` of a call would be refused where only the step that reads it knows of it."""
    read = re.compile(r"(?:query\.get|\.number|\.seconds)\(\s*\"(\w+)\"")
    found = {
        name
        for module in (*(HTTP / "api").glob("*.py"), *(HTTP / "pipeline").glob("*.py"))
        for name in read.findall(module.read_text())
    }
    assert len(found) > 10
    assert found - QUERY.keys() == set()


def test_a_call_takes_the_callers_time_limit() -> None:
    with World(shop) as world:
        path = f"{API_PREFIX}/functions/shop.sell"
        assert world.ask("POST", f"{path}?timeout=5s", 1).status == 200
        assert world.ask("POST", f"{path}?timeout=soon", 1).status == 400


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
        (
            "POST",
            "/queues/orders?dely=5",
            "here (did you mean `delay`?); this path takes `at`, `delay`, ",
        ),
        ("POST", "/queues/orders?delay=5&delay=6", "`delay` is given twice"),
        ("GET", "/lag?limit=5", "no query parameter `limit` here; this path takes `function`"),
        ("GET", "/map?x", "no query parameter `x` here; this path takes none"),
        ("POST", "/functions/shop.sell?delay=5", "`delay` here; this path takes `timeout`"),
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
        for path in ("/healthz?from=probe", "/readyz?x=1&x=2", "/metrics?job=node"):
            assert world.ask("GET", path).status == 200
