"""What operators see of stores: which there are, what they hold, and what nobody uses any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace import App, Context, Event
from headrace.testing import World
from headrace.windows import TumblingWindow

app = App("shop")
orders = app.stream("orders")
out = app.stream("out")
totals = app.store("totals", int, default=0)
app.store("spare", list[str], ttl="1d")


@app.function(orders)
def add(event: Event[int], context: Context) -> None:
    context.store(totals)[event.key] += event.value
    context.state.put("last/" + (event.key or ""), event.value, ttl="1h")


@app.function(orders)
def idle(event: Event[int]) -> None: ...


@app.window(orders, TumblingWindow("1h"), output=out)
def sums(so_far: int | None, event: Event[int]) -> int:
    return (so_far or 0) + event.value


@pytest.fixture
def world() -> Iterator[World]:
    with World(app) as found:
        for key in ("ada", "bob", "a/b ü"):
            found.publish(orders, 1, 2, key=key)
        found.run_until_idle()
        yield found


def stores(world: World) -> dict[str, Any]:
    found = world.ask("GET", "/-/v1/state/shop").body["stores"]
    return {row.pop("store"): row for row in found}


def test_the_stores_of_an_app_are_listed(world: World) -> None:
    assert stores(world) == {
        "shop.add": {"type": "Any", "ttl": None, "is_used": True, "is_empty": False},
        "spare": {"type": "list[str]", "ttl": 86_400.0, "is_used": True, "is_empty": True},
        "totals": {"type": "int", "ttl": None, "is_used": True, "is_empty": False},
    }


def test_a_store_that_nobody_declares_any_more_keeps_its_rows(world: World) -> None:
    del app.stores["totals"]
    try:
        world._lives.specs[:] = [app.spec()]
        world.crash()
        world.run_until_idle()
        assert stores(world)["totals"]["is_used"] is False
        assert world.ask("GET", "/-/v1/state/shop/totals/ada").body["value"] == 3
    finally:
        app.stores["totals"] = totals


def test_keys_are_listed_in_pages_by_prefix(world: World) -> None:
    first = world.ask("GET", "/-/v1/state/shop/totals?limit=2").body
    assert [(row["key"], row["value"]) for row in first["state"]] == [("a/b ü", 3), ("ada", 3)]
    rest = world.ask("GET", f"/-/v1/state/shop/totals?limit=2&after={first['after']}").body
    assert ([row["key"] for row in rest["state"]], rest["after"]) == (["bob"], "")
    found = world.ask("GET", "/-/v1/state/shop/shop.add?prefix=last/b").body["state"]
    assert [(row["key"], "expires" in row) for row in found] == [("last/bob", True)]
    assert world.ask("GET", "/-/v1/state/shop/shop.idle").body["state"] == []


def test_a_key_is_shown(world: World) -> None:
    assert world.ask("GET", "/-/v1/state/shop/totals/a%2Fb%20%C3%BC").body["value"] == 3
    assert world.ask("GET", "/-/v1/state/shop/shop.add/last%2Fada").body["value"] == 2


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/-/v1/state/shops", "did you mean `shop`"),
        ("/-/v1/state/shop/total", "did you mean `totals`"),
        ("/-/v1/state/shop/total/ada", "did you mean `totals`"),
        ("/-/v1/state/shop/shop.adds", "did you mean `shop.add`"),
        ("/-/v1/state/shop/totals/eve", "`headrace state list shop totals` shows its keys"),
        ("/-/v1/state/shop/%2Fwindows", "has no store `/windows`"),
    ],
)
def test_what_is_not_there_is_named(world: World, path: str, says: str) -> None:
    answer = world.ask("GET", path)
    assert answer.status == 404
    assert says in answer.body["detail"]
