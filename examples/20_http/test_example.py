"""The order desk on a real node, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def ask(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Ask the node; its status, headers and JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(url, data=data, method=method, headers=named)
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        raw = answer.read()
        found = {name.lower(): text for name, text in answer.headers.items()}
        return answer.status, found, json.loads(raw) if raw else None


def wait_for(place: str, status: str) -> None:
    """Wait until a kept request has come as far as `status`."""
    deadline = time.monotonic() + 20
    while ask("GET", place)[2]["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that runs the example."""
    data = tmp_path_factory.mktemp("data")
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "serve", str(HERE / "function.py"),
         "--data", str(data), "--port", "0"],
        env=environ, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        note = data / "node.json"
        deadline = time.monotonic() + 20
        while not note.is_file() or not note.read_bytes():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads(note.read_bytes())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def test_orders_are_placed_once_and_shown(url: str) -> None:
    place = f"{url}/desk/orders/7"
    assert ask("GET", place)[0] == 404
    assert ask("PUT", place, {"item": "assam", "quantity": 2})[0] == 201
    assert ask("PUT", place, {"item": "assam", "quantity": 3})[0] == 200
    assert ask("GET", place)[2] == {"item": "assam", "quantity": 3}
    status, _, problem = ask("PUT", place, {"item": "assam", "quantity": "three"})
    assert (status, problem["errors"][0]["path"]) == (400, "/quantity")


def test_a_search_is_typed(url: str) -> None:
    assert ask("GET", f"{url}/desk/teas?prefix=d&limit=1")[2] == ["darjeeling"]
    assert ask("GET", f"{url}/desk/teas?limit=all")[0] == 400


def test_invoices_are_kept_for_those_with_a_token(url: str) -> None:
    place, order = f"{url}/desk/ada/invoices", {"item": "assam", "quantity": 1}
    assert ask("POST", place, order)[0] == 401
    made = ask("POST", f"{url}/tokens", {"name": "till", "scopes": ["invoices:write"]})[2]
    till = f"Bearer {made['token']}"
    status, headers, _ = ask("POST", place, order, authorization=till, idempotency_key="1")
    assert status == 202
    wait_for(url + headers["location"], "committed")
    assert ask("POST", place, order, authorization=till, idempotency_key="1")[2]["duplicate"]
