"""An app that is edited while it is at work: nobody is refused, nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.workloads.reloads import campaign, code
from bench.workloads.serving import Serving, serving

from headrace.client.address import read_key

PATIENCE_S = 60.0
SLOW = """
import time
from pathlib import Path
from headrace import App, Http

GO = Path(__file__).absolute().parent / "go.tmp"
VERSION = {version}
app = App("shop")
orders = app.stream("orders")
kept = app.stream("kept")


@app.function(Http("POST", "/price"))
def price(event):
    return VERSION


@app.function(orders, batch_size={size}, timeout=60)
def keep(event, context):
    if event.value == "slow":
        context.logger.info("begun")
        while not GO.exists():
            time.sleep(0.02)
    context.publish(kept, [event.value, VERSION])
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "shop.py"


def until(holds: Callable[[], Any]) -> Any:
    ends = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < ends, f"{holds} never held"
        time.sleep(0.01)
    return found


def said(node: Serving) -> str:
    return node.data.with_name(f"{node.data.name}.log").read_text()


def logs(node: Serving) -> str:
    """What functions wrote, which its operator may read."""
    shown = {"authorization": f"Bearer {read_key(node.data)}"}
    request = urllib.request.Request(f"{node.url}/-/v1/logs", headers=shown)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def kept(node: Serving) -> list[Any]:
    return [each["value"] for each in node.get("/-/v1/streams/kept/records?limit=1000")["records"]]


def status(node: Serving, path: str) -> int:
    try:
        node.post(path, b"null")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_edits_under_load_are_noticed_by_nobody(app: Path, tmp_path: Path) -> None:
    app.write_text(code(0))
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        _, seen = asyncio.run(campaign(node, app, reloads=7, connections=16, rate=1_000))
    assert set(seen.statuses) == {200}
    assert len(seen.took) > 100
    nothing = {"kept": 0, "sorted": 0}
    assert (seen.missing, seen.doubled, seen.disordered) == (nothing, nothing, nothing)


@pytest.mark.parametrize("size", [100, 50], ids=["other code", "delivered otherwise"])
def test_a_long_run_holds_up_neither_names_nor_its_order(
    app: Path, tmp_path: Path, size: int
) -> None:
    app.write_text(SLOW.format(version=1, size=100))
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        node.post("/-/v1/streams/orders", b'"slow"')
        until(lambda: "begun" in logs(node))
        app.write_text(SLOW.format(version=2, size=size))
        answers = [1]
        while answers[-1] == 1:
            answers.append(node.post("/price", b"null"))
        node.post("/-/v1/streams/orders", b'"next"')
        assert answers[-1] == 2
        assert kept(node) == []
        (app.parent / "go.tmp").touch()
        assert until(lambda: len(kept(node)) == 2 and kept(node)) == [["slow", 1], ["next", 2]]


def test_an_edit_that_asks_for_what_cannot_be_keeps_the_old_version_whole(
    app: Path, tmp_path: Path
) -> None:
    app.write_text(SLOW.format(version=1, size=100))
    twice = SLOW.format(version=2, size=100).replace(
        "@app.function(orders",
        '@app.function(Http("POST", "/price"))\ndef other(event): ...\n\n\n@app.function(orders',
    )
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        app.write_text(twice)
        until(lambda: "/price" in said(node))
        assert node.post("/price", b"null") == 1
        node.post("/-/v1/streams/orders", b'"one"')
        assert until(lambda: kept(node)) == [["one", 1]]
        app.write_text(SLOW.format(version=3, size=100))
        until(lambda: node.post("/price", b"null") == 3)


def test_a_function_that_is_taken_out_answers_what_it_has_and_is_then_unknown(
    app: Path, tmp_path: Path
) -> None:
    whole = SLOW.format(version=1, size=100).replace(
        "return VERSION", "time.sleep(1)\n    return VERSION"
    )
    whole = whole.replace(
        '@app.function(Http("POST", "/price"))',
        '@app.function(Http("POST", "/price"), scaling=Scaling(max=1))',
    )
    whole = whole.replace("import App, Http", "import App, Http, Scaling")
    app.write_text(whole)
    answers: list[Any] = []
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        asking = [
            threading.Thread(target=lambda: answers.append(node.post("/price", b"null")))
            for _ in range(3)
        ]
        for each in asking:
            each.start()
        until(
            lambda: any(
                each["state"] == "busy" for each in node.get("/-/v1/instances")["instances"]
            )
        )
        head, _, tail = whole.partition("@app.function(Http")
        app.write_text(head + "@app.function(orders" + tail.partition("@app.function(orders")[2])
        until(lambda: status(node, "/price") == 404)
        for each in asking:
            each.join()
        assert answers == [1, 1, 1]


def test_an_interrupt_while_an_edit_is_loaded_ends_the_node_in_good_order(
    app: Path, tmp_path: Path
) -> None:
    app.write_text(SLOW.format(version=1, size=100))
    with serving(str(app), tmp_path / "data", verb="dev") as node:
        app.write_text(f"print('loading', flush=True)\nimport time\ntime.sleep(50)\n{SLOW}")
        until(lambda: "loading" in logs(node))
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in said(node)
        assert "failed" not in said(node)
