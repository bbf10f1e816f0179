"""A node whose `init` hooks fail: events wait and lose nothing, other functions run, and it says why."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.workloads.serving import Serving, headrace, serving

from headrace.client.address import read_key

PATIENCE_S = 60.0
APP = """
from headrace import App, DeadLetter, Http, Retry

app = App("shop")
orders = app.stream("orders")
kept = app.stream("kept")


@app.init(only=["keep", "sell"])
def connect():
    {connect}


@app.function(orders, retry=Retry(attempts=1), on_failure=DeadLetter(), publishes=[kept])
def keep(event, context):
    context.publish(kept, [event.value, context.attempt])


@app.function(Http("POST", "/sell"))
def sell(event):
    return "sold"


@app.function(Http("POST", "/price"))
def price(event):
    return 3
"""
ASYNC_APP = """
import asyncio

from headrace import App, Http

app = App("shop")


@app.resource
async def database():
    await asyncio.sleep(0)
    (app.folder / "seen").open("a").write("open ")
    yield "a row"
    await asyncio.sleep(0)
    (app.folder / "seen").open("a").write("closed ")


@app.init
async def connect():
    await database


@app.on_stop
async def leave():
    await asyncio.sleep(0)
    (app.folder / "seen").open("a").write(f"stop with {await database}, ")


@app.function(Http("POST", "/plain"))
def plain(event):
    return database.value


@app.function(Http("POST", "/waits"))
async def waits(event):
    return await database
"""
CAUSE = "ConnectionError: no database (in the `init` hook `connect`)"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "shop.py"


def until(holds: Callable[[], Any]) -> Any:
    ends = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < ends, "it never held"
        time.sleep(0.02)
    return found


def operated(node: Serving, path: str) -> str:
    headers = {"authorization": f"Bearer {read_key(node.data)}", "accept": "*/*"}
    request = urllib.request.Request(node.url + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def shown(node: Serving, path: str) -> Any:
    """What the operator sees there: error texts are private to the app."""
    return json.loads(operated(node, path))


def kept(node: Serving) -> list[Any]:
    return [each["value"] for each in node.get("/-/v1/streams/kept/records?limit=1000")["records"]]


def status(node: Serving, path: str) -> int:
    try:
        node.post(path, b"null")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def checks(node: Serving) -> dict[str, str]:
    found: dict[str, str] = shown(node, "/readyz").get("checks", {})
    return {name: why for name, why in found.items() if name.startswith("instances of ")}


def state(node: Serving) -> str:
    (row,) = (row for row in shown(node, "/-/v1/lag")["lag"] if row["function"] == "shop.keep")
    return str(row["state"])


def test_a_hook_that_fails_costs_no_event_an_attempt_and_a_mended_file_runs_them(
    app: Path, tmp_path: Path
) -> None:
    app.write_text(APP.format(connect='raise ConnectionError("no database")'))
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        for value in (b'"one"', b'"two"', b'"three"'):
            node.post("/-/v1/streams/orders", value)
        until(lambda: operated(node, "/-/v1/logs").count("no instance starts") > 2)
        assert status(node, "/sell") == 503
        assert node.post("/price", b"null") == 3
        assert set(checks(node)) == {"instances of shop.keep", "instances of shop.sell"}
        assert all(why.startswith(f"{CAUSE}; tried again at 2") for why in checks(node).values())
        assert state(node) == f"not starting: {CAUSE}"
        for offset in range(3):
            (row,) = shown(node, f"/-/v1/explain/orders/0/{offset}")["functions"]
            assert (row["status"], row["attempts"], row["cause"]) == ("waiting", 0, CAUSE)
            assert row["blocked_by"] == "an instance, and none starts"
            assert row["next_attempt"]
        assert shown(node, "/-/v1/functions/shop.sell")["failed_start"]["cause"] == CAUSE
        assert "does not start" in operated(node, "/console/functions/shop.sell")
        told = subprocess.run(
            [headrace(), "explain", "orders/0/1", "--data", str(node.data)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "none starts" in told.stdout
        assert CAUSE in told.stdout

        app.write_text(APP.format(connect="pass"))
        assert until(lambda: len(kept(node)) == 3 and kept(node)) == [
            ["one", 1],
            ["two", 1],
            ["three", 1],
        ]
        assert node.post("/sell", b"null") == "sold"
        assert (checks(node), state(node)) == ({}, "running")
        assert node.get("/-/v1/dead")["dead"] == []
        assert "failed_start" not in node.get("/-/v1/functions/shop.sell")


def test_what_a_hook_waits_for_comes_back_and_events_run_by_themselves(
    app: Path, tmp_path: Path
) -> None:
    app.write_text(
        APP.format(
            connect='assert (app.folder / "database").exists(), "no database"',
        )
    )
    with serving(str(app), tmp_path / "data") as node:
        node.post("/-/v1/streams/orders", b'"one"')
        until(lambda: state(node).startswith("not starting: AssertionError: no database"))
        (node.data / "files" / "shop" / "database").touch()
        assert until(lambda: kept(node)) == [["one", 1]]
        until(lambda: state(node) == "running")


def test_asynchronous_hooks_and_resources_live_as_long_as_their_instance(
    app: Path, tmp_path: Path
) -> None:
    app.write_text(ASYNC_APP)
    with serving(str(app), tmp_path / "data") as node:
        for path in ("/plain", "/waits", "/plain", "/waits"):
            assert node.post(path, b"null") == "a row"
    seen = (tmp_path / "data" / "files" / "shop" / "seen").read_text()
    assert sorted(seen.split(" stop")[0].split()) == ["open", "open"]
    assert seen.count("stop with a row") == seen.count("closed") == 2
