"""The node that an author's test starts and asks over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing import serving
from headrace.testing.served import Served

APP = """
from headrace import App

app = App("desk")
orders = app.stream("orders")
counts = app.store("counts", int, default=0)


@app.function(orders)
def count(event, context):
    context.store(counts)["orders"] += 1


@app.function()
def seen(event, context):
    return context.store(counts)["orders"]
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    file = tmp_path / "desk.py"
    file.write_text(APP)
    return file


def test_a_node_is_asked_and_what_it_kept_is_there_for_the_next_one(app: Path) -> None:
    data = app.parent / "kept"
    with serving(app, data) as node:
        assert node.ask("POST", "/-/v1/streams/orders", {"tea": 1}).status == 202
        refused = node.ask("GET", "/-/v1/streams/parcels")
        assert refused.status == 404
        assert refused.headers["content-type"] == "application/problem+json"
        assert "parcels" in refused.body["detail"]
        first = node.url
    with serving(app, data) as node:
        assert node.url != first
        assert node.ask("GET", "/-/v1/streams/orders").body["records"] == 1
    assert b"Traceback" not in (app.parent / "kept.log").read_bytes()


def test_an_app_that_cannot_be_served_is_complained_of_with_what_the_node_said(app: Path) -> None:
    app.write_text("import a_module_that_is_not_there\n")
    with (
        pytest.raises(AssertionError, match="a_module_that_is_not_there"),
        serving(app, app.parent / "kept"),
    ):
        pass  # pragma: no cover


def test_a_fault_of_the_test_itself_leaves_no_node_behind(app: Path) -> None:
    def faulty() -> None:
        with serving(app, app.parent / "kept") as node:
            nodes.append(node)
            raise ZeroDivisionError

    nodes: list[Served] = []
    with pytest.raises(ZeroDivisionError):
        faulty()
    with pytest.raises(OSError, match="refused"):
        nodes[0].ask("GET", "/health")
