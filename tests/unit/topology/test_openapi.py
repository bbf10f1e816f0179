"""Documents of authors' routes are valid OpenAPI, whatever the routes are."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate

from headrace import App, Bearer, Event, Http
from headrace.model.function import AppSpec
from headrace.topology.openapi import document

EXAMPLES = Path(__file__).parents[3] / "examples"


class Order(msgspec.Struct):
    item: str


def test_paths_that_differ_in_nothing_but_names_are_one() -> None:
    shop = App("shop")

    def change(event: Event[Order]) -> None: ...

    def drop(event: Any) -> None: ...

    shop.function(Http("PUT", "/orders/{number:int}/lines/{line}"))(change)
    shop.function(Http("DELETE", "/orders/{id}/lines/{place:int}", auth=Bearer("x")))(drop)
    found = document([shop.spec()])
    validate(found)
    (path, operations) = next(iter(found["paths"].items()))
    assert list(found["paths"]) == ["/orders/{number}/lines/{line}"] == [path]
    assert set(operations) == {"put", "delete"}
    assert [each["name"] for each in operations["delete"]["parameters"]][:2] == ["number", "line"]
    assert operations["delete"]["parameters"][1]["schema"] == {"type": "integer"}


def test_paths_of_the_same_words_are_operations_of_their_own() -> None:
    shop = App("shop")

    def order(event: Any) -> None: ...

    paths = ["/a-b", "/a_b", "/a/b", "/a/{b}"]
    shop.function(*(Http("POST", path) for path in paths))(order)
    found = document([shop.spec()])
    validate(found)
    ids = {found["paths"][path]["post"]["operationId"] for path in paths}
    assert len(ids) == 4
    assert "shop.order.post.a_b" in ids


def test_the_headers_a_route_takes_are_named() -> None:
    shop = App("shop")

    def order(event: Event[Order]) -> None: ...

    shop.function(Http("POST", "/orders", headers=("X-Tenant", "Accept")))(order)
    found = document([shop.spec()])
    validate(found)
    given = found["paths"]["/orders"]["post"]["parameters"]
    assert [(each["name"], each["in"]) for each in given] == [
        ("x-tenant", "header"),
        ("idempotency-key", "header"),
    ]


@pytest.mark.parametrize("folder", sorted(each.name for each in EXAMPLES.glob("2*")))
def test_every_example_with_routes_is_described_validly(folder: str) -> None:
    found = document([runpy.run_path(str(EXAMPLES / folder / "function.py"))["app"].spec()])
    validate(found)
    assert found["paths"]


def test_the_platforms_own_apps_are_not_named() -> None:
    found = document([AppSpec(name="_bus"), AppSpec(name="shop", version="1")])
    assert found["info"] == {"title": "shop", "version": "1"}


def named(name: str, **fields: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, list(fields.items()))


def routed(app: App, **bodies: Any) -> App:
    """The app with a route for each body."""
    typed: Any = Event
    for path, body in bodies.items():

        def take(event: Any) -> None: ...

        take.__name__ = path
        take.__annotations__ = {"event": typed[body]}
        app.function(Http("POST", f"/{app.name}/{path}"))(take)
    return app


def body_at(found: dict[str, Any], path: str) -> tuple[str, dict[str, Any]]:
    """The name and the properties of what a route takes."""
    content = found["paths"][path]["post"]["requestBody"]["content"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return name, found["components"]["schemas"][name]["properties"]


def test_two_types_of_one_name_are_two_components() -> None:
    text, number, again = named("Item", a=str), named("Item", a=int), named("Item", a=str)
    problem = named("Problem", mine=bool)
    shop = routed(App("shop"), text=text, number=number, again=again, problem=problem)
    till = routed(App("till"), text=text, number=number)
    found = document([shop.spec(), till.spec()])
    validate(found)
    names = {}
    for path, kind in [
        ("/shop/text", "string"),
        ("/shop/number", "integer"),
        ("/shop/again", "string"),
        ("/till/text", "string"),
        ("/till/number", "integer"),
    ]:
        names[path], properties = body_at(found, path)
        assert properties["a"]["type"] == kind, path
    assert names["/shop/text"] == names["/shop/again"] == "Item"
    assert len(set(names.values())) == 4
    name, properties = body_at(found, "/shop/problem")
    assert (name, list(properties)) == ("shop.Problem", ["mine"])
    assert found["components"]["schemas"]["Problem"]["required"][0] == "type"


def test_types_that_hold_others_of_one_name_are_two_components() -> None:
    first, second = named("Item", a=str), named("Item", a=int)
    shop = routed(App("shop"), one=named("Order", item=first), two=named("Order", item=second))
    found = document([shop.spec()])
    validate(found)
    schemas = found["components"]["schemas"]
    for path, kind in (("/shop/one", "string"), ("/shop/two", "integer")):
        _, properties = body_at(found, path)
        item = schemas[properties["item"]["$ref"].rpartition("/")[2]]
        assert item["properties"]["a"]["type"] == kind, path
