"""The shop in front of an old system, on real nodes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.testing import serving
from headrace.testing.served import Served

APP = Path(__file__).with_name("function.py")


class Old(BaseHTTPRequestHandler):
    """The old system."""

    def do_GET(self) -> None:
        """Say who it is, in its own words."""
        answer = json.dumps({"sys": "old", "tnt": self.headers.get("x-tenant"), "system": "old"})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: object) -> None:
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
def node(old: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that runs the example, in front of the old system."""
    folder = tmp_path_factory.mktemp("app")
    folder.chmod(0o755)
    app = folder / "function.py"
    app.write_text(APP.read_text().replace("8099", str(old)))
    with serving(app, folder / "kept") as node:
        yield node


def test_every_customer_keeps_to_one_system(node: Served) -> None:
    def systems() -> list[str]:
        return [node.ask("GET", f"/prices/{number}").body["system"] for number in range(40)]

    first = systems()
    assert {"old", "new"} == set(first)
    assert systems() == first


def test_functions_stand_between_clients_and_the_old_system(node: Served) -> None:
    assert node.ask("GET", "/old/stock").body == {"system": "old", "tenant": "shop"}
    assert node.ask("GET", "/old/internal/users").status == 403
