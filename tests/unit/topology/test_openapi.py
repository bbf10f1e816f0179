"""What is said of authors' routes is valid OpenAPI, whatever they are."""

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
        ("x-tenant", "header"), ("idempotency-key", "header"),
    ]  # fmt: skip


@pytest.mark.parametrize("folder", sorted(each.name for each in EXAMPLES.glob("2*")))
def test_every_example_with_routes_is_described_validly(folder: str) -> None:
    found = document([runpy.run_path(str(EXAMPLES / folder / "function.py"))["app"].spec()])
    validate(found)
    assert found["paths"]


def test_the_platforms_own_apps_are_not_named() -> None:
    found = document([AppSpec(name="_bus"), AppSpec(name="shop", version="1")])
    assert found["info"] == {"title": "shop", "version": "1"}
