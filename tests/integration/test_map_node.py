"""The map of a real node has every edge, and says how it is known, over restarts."""

from __future__ import annotations

import time
from pathlib import Path

from headrace.testing import serving
from headrace.testing.served import Served

APP = """
from headrace import App, Http

app = App("shop")
orders = app.stream("orders", partitions=1)
totals = app.stream("totals", partitions=1)
audits = app.stream("audits", partitions=1)
app.stream("totals2", partitions=1)

@app.function(orders, output=audits)
def count(event, context):
    context.publish(totals, 1)
    context.publish(event.value["to"], 1)

@app.function(Http("POST", "/say"))
def say(event, context):
    context.publish(event.value["to"], 1)
    return "said"
"""


def _known(node: Served) -> dict[str, dict[str, str]]:
    return {row["function"]: row["known_by"] for row in node.ask("GET", "/-/v1/map").body["map"]}


def test_every_edge_of_a_running_node_says_how_it_is_known(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    before = {"shop.count": {"audits": "declared", "totals": "code"}, "shop.say": {}}
    after = {
        "shop.count": {"audits": "declared", "totals": "code", "totals2": "observed"},
        "shop.say": {"totals": "observed"},
    }
    with serving(app, tmp_path / "data") as node:
        assert _known(node) == before
        assert node.ask("POST", "/-/v1/streams/orders", {"to": "totals2"}).status == 202
        assert node.ask("POST", "/say", {"to": "totals"}).status == 200
        deadline = time.monotonic() + 20
        while _known(node) != after:
            assert time.monotonic() < deadline, _known(node)
            time.sleep(0.05)
        page = str(node.ask("GET", "/console").body)
        assert "<title>observed</title>" in page
        assert "<title>in code</title>" in page
    with serving(app, tmp_path / "data") as node:
        assert _known(node) == after
