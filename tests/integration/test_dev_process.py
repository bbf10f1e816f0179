"""`headrace dev` as a process: what it prints of what happens, and what it loads again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.workloads.serving import command

PATIENCE_S = 60.0
APP = """
from headrace import App, Http, Retry

app = App("shop")
orders = app.stream("orders")
RATE = app.setting("RATE", float, default=1.0)


@app.function(orders, retry=Retry(attempts=2, initial_delay=0.01))
def price(event, context):
    print("pricing", event.value)
    context.logger.warning("look at %s", event.value)
    if event.value == "flood":
        for number in range(5_000):
            print("flooded", number)
    if event.value == "durian":
        raise KeyError("durian")


@app.function(Http("POST", "/rate"))
def rate(event):
    return [1, RATE.value]
"""


class Dev:
    """A running `headrace dev`, or `serve`."""

    def __init__(self, folder: Path, *options: str, name: str = "dev") -> None:
        self.note = folder / "data" / "node.json"
        self.log = folder / "dev.log"
        environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
        environ["HEADRACE_ACCESS"] = "local"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command(
                    *(name, "app/shop.py", "--data", "data", "--port", "0"),
                    *("--config", "etc/headrace.toml", *options),
                ),
                cwd=folder,
                env=environ,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, pattern: str) -> str:
        """The line that says so."""
        return str(self.wait(lambda: re.search(f"^.*{pattern}.*$", self.said, re.M))[0])

    def wait(self, holds: Callable[[], Any]) -> Any:
        ends = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < ends, self.said
            time.sleep(0.01)
        return found

    def post(self, path: str, value: object) -> Any:
        url = json.loads(self.note.read_bytes())["url"]
        request = urllib.request.Request(
            url + path,
            data=json.dumps(value).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def dev(folder: Path, *options: str, name: str = "dev") -> Iterator[Dev]:
    node = Dev(folder, *options, name=name)
    try:
        node.wait(node.note.exists)
        node.until("headrace: serving")
        yield node
    finally:
        node.process.send_signal(signal.SIGTERM)
        try:
            assert node.process.wait(PATIENCE_S) == 0, node.said
        finally:
            node.process.kill()
            node.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    for name in ("app", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "app" / "shop.py").write_text(APP)
    (tmp_path / "etc" / "headrace.toml").write_text("")
    return tmp_path


def test_what_happens_is_printed_with_the_command_that_looks_closer(folder: Path) -> None:
    with dev(folder) as node:
        node.post("/-/v1/streams/orders", "apple")
        assert re.match(
            r"\d\d:\d\d:\d\d\.\d{3}  INFO     shop\.price  ", node.until("pricing apple")
        )
        assert "  WARNING  shop.price  " in node.until("look at apple")
        assert "  INFO     headrace    " in node.until(
            r"POST /-/v1/streams/orders 202 in [\d.]+ ms"
        )
        assert node.post("/rate", None) == [1, 1.0]
        assert "  INFO     shop.rate   " in node.until(r"POST /rate 200 in [\d.]+ ms")
        with pytest.raises(urllib.error.HTTPError):
            node.post("/nowhere", None)
        assert "  WARNING  headrace    " in node.until("POST /nowhere 404 in")
        node.post("/-/v1/streams/orders", "durian")
        node.until(
            r"failed at attempt 1, event orders/0/1: KeyError: 'durian' \(headrace explain orders/0/1\)"
        )
        node.until(
            r"dead letter orders/0/1 after 2 attempts: .*\(headrace dead show shop.price orders/0/1\)"
        )
        node.post("/-/v1/streams/orders", "flood")
        assert "  WARNING  shop.price  " in node.until(r"\.\.\. \d,\d{3} lines left out")
    assert "\x1b" not in node.said


def test_edits_and_settings_elsewhere_are_loaded_and_told(folder: Path) -> None:
    with dev(folder) as node:
        (folder / "app" / "shop.py").write_text(APP.replace("[1, RATE.value]", "[2, RATE.value]"))
        assert "INFO" in node.until(
            r"reloaded `shop` in [\d,]+ ms, now version \w+ \(shop.py changed\)"
        )
        assert node.post("/rate", None) == [2, 1.0]
        (folder / "etc" / "other.toml").write_text("x = 1")
        settings = folder / "etc" / "headrace.toml"
        settings.with_name("new").write_text("[apps.shop.settings]\nRATE = 3\n")
        settings.with_name("new").rename(settings)
        node.until(r"reloaded .*\(headrace.toml changed\)")
        assert node.post("/rate", None) == [2, 3.0]
        settings.write_text("[apps.shop")
        assert "WARNING" in node.until("kept the old settings")
        (folder / "app" / "shop.py").write_text("x = (")
        node.until(r"kept the old version of .*, which goes on \(shop.py changed\): .*SyntaxError")
        assert node.post("/rate", None) == [2, 3.0]
    assert "other.toml" not in node.said
    assert "headrace.db" not in node.said


def test_a_node_that_serves_logs_what_was_given_up_and_nothing_else_of_functions(
    folder: Path,
) -> None:
    with dev(folder, name="serve") as node:
        node.post("/-/v1/streams/orders", "apple")
        node.post("/-/v1/streams/orders", "durian")
        said = node.until("dead letter orders/0/1")
    assert said.endswith(
        "WARNING headrace.node: shop.price: dead letter orders/0/1 after 2 attempts: "
        "KeyError: 'durian' (headrace dead show shop.price orders/0/1)"
    )
    assert not re.search(r"pricing|look at|failed at|POST", node.said)


def test_quiet_prints_only_what_fails(folder: Path) -> None:
    with dev(folder, "--quiet") as node:
        node.post("/-/v1/streams/orders", "apple")
        node.post("/-/v1/streams/orders", "durian")
        node.until("dead letter orders/0/1")
    assert "look at apple" in node.said
    assert "failed at attempt 2" in node.said
    assert not re.search(r"pricing|POST|  INFO  ", node.said)


@pytest.mark.parametrize("only", [("shop.rate",), ("shop",), ("shpo", "shop.rate")])
def test_only_what_is_named_is_printed(folder: Path, only: tuple[str, ...]) -> None:
    with dev(folder, *(part for name in only for part in ("--only", name))) as node:
        node.post("/-/v1/streams/orders", "durian")
        time.sleep(0.3)
        node.post("/rate", None)
        node.until("POST /rate 200")
        if "shop" in only:
            node.until("dead letter orders/0/0")
    assert ("pricing durian" in node.said) is ("shop" in only)
    assert "POST /-/v1/streams" not in node.said
    assert ("`--only shpo` names no function or app" in node.said) is ("shpo" in only)
