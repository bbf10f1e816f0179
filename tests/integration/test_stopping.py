"""A node that is told to stop is gone soon after its drain, whatever still runs, and says so to clients."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.node.config import environment_of
from headrace.testing import serving
from headrace.testing.served import Served, ServedResponse, ask

LONG = 300.0
"""What sleeps does so for far longer than `serving` waits for the node's end."""
APP = f"""
import asyncio, time

from headrace import *
from headrace.sources import Emit, Lag

app = App("slow")
orders = app.stream("orders")
loads = app.stream("loads")
out = app.stream("out")
seen = app.store("seen", bool)
app.proxy("/behind", upstream="UPSTREAM", timeout={LONG})


@app.function(orders, timeout={LONG})
def pack(event, context):
    if context.store(seen).get("begun"):
        context.publish(out, [event.value, context.attempt])
        return
    context.logger.info("begun")
    time.sleep({LONG})


@app.function(Http("POST", "/ask", timeout={LONG}), timeout={LONG})
def ask(event, context):
    context.publish(out, "never")
    context.logger.info("begun")
    time.sleep({LONG})


@app.function(Http("GET", "/live", mode="live", timeout={LONG}), timeout={LONG})
async def live(event, context):
    yield 1
    context.logger.info("begun")
    await asyncio.sleep({LONG})


@app.function(Lag("loads", thresholds={{0: 0, 1: 1}}, every=0.1), timeout={LONG})
def consume(consumer: Consumer, context):
    consumer.fetch(1)
    context.logger.info("begun")
    time.sleep({LONG})


@app.source(every=0.1)
def feed(checkpoint):
    print("begun", flush=True)
    time.sleep({LONG})
    yield Emit(1)


@app.function(feed)
def fed(event):
    pass


@app.function()
def wake(event, context):
    context.store(seen)["begun"] = True
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a service that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def until(holds: Callable[[], bool]) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + 20
    while not holds():
        assert clock.monotonic() < deadline
        clock.pause(0.05)


def begun(node: Served) -> int:
    lines = node.ask("GET", "/-/v1/logs?limit=1000").body["logs"]
    return sum(line["text"] == "begun" for line in lines)


def test_whatever_runs_when_the_drain_is_over_is_taken_back_and_clients_are_told(
    home: Path, silent: str
) -> None:
    file = home / "slow.py"
    file.write_text(APP.replace("UPSTREAM", silent))
    data, short = home / "data", {"HEADRACE_DRAIN": "1"}
    with ThreadPoolExecutor() as pool:
        # Its block ends with a SIGTERM, and only where the node ends within 20 seconds and with 0.
        with serving(file, data, environ=short) as node:
            node.ask("POST", "/-/v1/streams/orders", 7)
            node.ask("POST", "/-/v1/streams/loads", 7)
            asked = [
                pool.submit(node.ask, "POST", "/ask", 1),
                pool.submit(node.ask, "POST", "/-/v1/functions/slow.ask", 1),
                pool.submit(node.ask, "POST", "/-/v1/functions/slow.ask", 1, idempotency_key="k"),
                pool.submit(node.ask, "GET", "/behind/it"),
            ]
            heard = pool.submit(node.ask, "GET", "/live")
            until(lambda: begun(node) >= 7)
            assert node.ask("POST", "/-/v1/functions/slow.wake", 1).status == 200
        for answer in [future.result() for future in asked]:
            assert (answer.status, answer.body["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        # A live answer that fails has no end.
        with pytest.raises(IncompleteRead):
            heard.result()
        with serving(file, data, environ=short) as node:
            # The attempt that was taken back is not counted.
            until(lambda: out_of(node.ask("GET", "/-/v1/streams/out/records")) == [[7, 1]])
            assert node.ask("GET", "/-/v1/dead").body["dead"] == []


def test_a_second_ctrl_c_leaves_neither_the_key_nor_the_address(home: Path, silent: str) -> None:
    (home / "slow.py").write_text(APP.replace("UPSTREAM", silent))
    with launched(home, "serve", "slow.py") as process:
        note, key = home / "data" / "node.json", home / "data" / "operator.key"
        until(note.is_file)
        url = json.loads(note.read_bytes())["url"]
        shown = {"authorization": f"Bearer {key.read_text()}"}
        with ThreadPoolExecutor() as pool:
            late = pool.submit(ask, "POST", f"{url}/ask", 1)
            until(lambda: "begun" in str(ask("GET", f"{url}/-/v1/logs", **shown).body))
            process.send_signal(signal.SIGINT)
            until(lambda: b"another Ctrl-C" in (home / "said.log").read_bytes())
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert late.exception() is not None
    assert not note.exists()
    assert not key.exists()


def out_of(answer: ServedResponse) -> list[object]:
    return [record["value"] for record in answer.body["records"]]


@contextlib.contextmanager
def launched(home: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "said.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "headrace.cli.main",
                *command,
                "--data",
                str(home / "data"),
                "--port",
                "0",
            ],
            cwd=home,
            env=environment_of({}),
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_node_whose_app_is_stuck_in_its_import_stops_at_once(home: Path) -> None:
    stuck = "import time\nprint('importing', flush=True)\ntime.sleep(300)\n"
    (home / "stuck.py").write_text(stuck)
    with launched(home, "serve", "stuck.py", "--log-level", "debug") as process:
        # The zygote has a scratch folder before it imports.
        until(lambda: any((home / "data" / "scratch").glob("*")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "Traceback" not in (home / "said.log").read_text()


def test_a_reload_that_is_stuck_in_its_import_does_not_hold_up_the_end(home: Path) -> None:
    app, note = home / "app.py", home / "data" / "node.json"
    app.write_text("from headrace import App\napp = App('a')\n")
    with launched(home, "dev", "app.py") as process:
        until(note.is_file)
        assert "url" in json.loads(note.read_bytes())
        scratch = home / "data" / "scratch"
        folders = len([*scratch.iterdir()])

        def is_loaded_anew() -> bool:
            # Again and again: it may not watch yet.
            app.write_text("import time\ntime.sleep(300)\n")
            return len([*scratch.iterdir()]) > folders

        until(is_loaded_anew)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Traceback" not in (home / "said.log").read_text()
