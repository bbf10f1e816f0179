"""The order desk on a real node, asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import serving
from headrace.testing.served import Served

APP = Path(__file__).with_name("function.py")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that runs the example."""
    with serving(APP, tmp_path_factory.mktemp("kept") / "data") as node:
        yield node


def test_orders_are_placed_once_and_shown(node: Served) -> None:
    place = "/desk/orders/7"
    assert node.ask("GET", place).status == 404
    assert node.ask("PUT", place, {"item": "assam", "quantity": 2}).status == 201
    assert node.ask("PUT", place, {"item": "assam", "quantity": 3}).status == 200
    assert node.ask("GET", place).body == {"item": "assam", "quantity": 3}
    status, _, problem = node.ask("PUT", place, {"item": "assam", "quantity": "three"})
    assert (status, problem["errors"][0]["path"]) == (400, "/quantity")


def test_a_search_is_typed(node: Served) -> None:
    assert node.ask("GET", "/desk/teas?prefix=d&limit=1").body == ["darjeeling"]
    assert node.ask("GET", "/desk/teas?limit=all").status == 400


def test_brewing_is_told_step_by_step(node: Served) -> None:
    told = node.ask("POST", "/desk/orders/7/brewing", accept="text/event-stream").body.decode()
    steps = [part.partition("data: ")[2] for part in told.split("\n\n")]
    assert steps[:3] == ['"water boils"', '"leaves are in"', '"tea is ready"']
    assert "event: committed" in told


def test_invoices_are_kept_for_those_with_a_token(node: Served) -> None:
    place, order = "/desk/ada/invoices", {"item": "assam", "quantity": 1}
    assert node.ask("POST", place, order).status == 401
    made = node.ask("POST", "/-/v1/tokens", {"name": "till", "scopes": ["invoices:write"]}).body
    till = f"Bearer {made['token']}"
    status, headers, _ = node.ask("POST", place, order, authorization=till, idempotency_key="1")
    assert status == 202
    node.wait_for(headers["location"])
    assert node.ask("POST", place, order, authorization=till, idempotency_key="1").body["duplicate"]
