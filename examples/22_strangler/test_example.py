"""The shop in front of an old system, on real nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class Old(BaseHTTPRequestHandler):
    """The old system."""

    def do_GET(self) -> None:
        """Say who it is, in its own words."""
        answer = json.dumps({"sys": "old", "tnt": self.headers.get("x-tenant"), "system": "old"})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def old() -> Iterator[int]:
    """The old system; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Old)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def url(old: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that runs the example."""
    data = tmp_path_factory.mktemp("data")
    data.chmod(0o755)
    app = data / "function.py"
    app.write_text((HERE / "function.py").read_text().replace("8099", str(old)))
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "serve", str(app),
         "--data", str(data / "kept"), "--port", "0"],
        env=environ, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        note = data / "kept" / "node.json"
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


def test_every_customer_keeps_to_one_system(url: str) -> None:
    def systems() -> list[str]:
        return [ask("GET", f"{url}/prices/{number}")[2]["system"] for number in range(40)]

    first = systems()
    assert {"old", "new"} == set(first)
    assert systems() == first


def test_functions_stand_between_clients_and_the_old_system(url: str) -> None:
    assert ask("GET", f"{url}/old/stock")[2] == {"system": "old", "tenant": "shop"}
    assert ask("GET", f"{url}/old/internal/users")[0] == 403
