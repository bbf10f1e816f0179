"""The console in a real browser: its own policy lets it show all it has, and nothing else runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.services.servers import absent

from headrace.testing import serving
from headrace.testing.served import Served

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
APP = '''
from headrace import App, Cron, Event, Retry

app = App("desk")
orders = app.stream("orders")
inner = app.stream("inner", private=True)
paid = app.stream("paid")


@app.function(orders, output=paid, retry=Retry(attempts=1))
def take(event: Event) -> int:
    """Take an order."""
    print("<b>taken</b>")
    return 100 // event.value


@app.function(Cron("0 7 * * *"))
def morning(event: Event) -> None: ...
'''


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not BROWSER:
        absent("no chromium is installed", "on Debian `apt-get install chromium` brings it")
    folder = tmp_path_factory.mktemp("desk")
    for each in (folder, *folder.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    file = folder / "desk.py"
    file.write_text(APP)
    # The pages are looked at by a browser that shows nothing.
    with serving(file, folder / "data", environ={"HEADRACE_ACCESS": "local"}) as found:
        for value in (5, 0, "<script>document.title='owned'</script>"):
            found.ask("POST", "/-/v1/streams/orders", value)
        deadline = time.monotonic() + 20
        while len(found.ask("GET", "/-/v1/dead").body["dead"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found


def shown(node: Served, path: str, folder: Path) -> str:
    """The page as the browser has understood it; whatever its policy refused fails the test."""
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
            *sandbox,
            f"--user-data-dir={folder}",
            f"{node.url}{path}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    refused = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert refused == []
    return done.stdout


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/console", '<a href="/console/functions/desk.take">'),
        ("/console/streams/orders", "&lt;script&gt;document.title"),
        ("/console/functions/desk.take", "ZeroDivisionError"),
        ("/console/triggers", "0 7 * * *"),
        ("/console/failures", "headrace dead redrive desk.take orders/0/1"),
    ],
)
def test_a_page_shows_what_there_is_under_its_own_policy(
    node: Served, path: str, says: str, tmp_path: Path
) -> None:
    page = shown(node, path, tmp_path)
    assert says in page
    assert "<style>" in page
    assert "owned" not in page.partition("</title>")[0]


PAGE = """<!doctype html><title>waits</title><script>
const node = "NODE", said = [];
const ask = async (path, how) => {
  try { said.push((await fetch(node + path, how)).status) } catch { said.push("refused") }
};
(async () => {
  const how = {method: "POST", body: "7", headers: {"content-type": "text/plain"}, credentials: "include"};
  await ask("/-/v1/streams/orders", how);
  await ask("/-/v1/streams/orders", {...how, mode: "no-cors"});
  await ask("/-/v1/tokens", {...how, body: '{"name": "mine", "scopes": ["admin"]}'});
  await ask("/console/streams/inner", {credentials: "include"});
  document.title = said.join(" ");
})();
</script>"""


class Elsewhere(BaseHTTPRequestHandler):
    """Another program of this machine, which serves a page against the node."""

    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *_: object) -> None: ...


def test_a_link_opens_the_console_and_the_page_of_another_port_does_not(
    node: Served, tmp_path: Path
) -> None:
    """One browser: it enters by the link, is known by its cookie, and then is led to another origin."""
    private = "/console/streams/inner"
    assert "token is needed" in browsed(f"{node.url}{private}", tmp_path)
    link = node.ask("POST", "/-/v1/console/links").body["path"]
    assert "Overview" in browsed(f"{node.url}{link}", tmp_path)
    assert "was used before" in browsed(f"{node.url}{link}", tmp_path / "other")
    # A cookie without an end lives as long as its browser; here each page has a browser of its own.
    held = node.ask("GET", "/-/v1/streams/orders/records").body["records"]
    Elsewhere.page = PAGE.replace("NODE", node.url).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        title = browsed(f"http://127.0.0.1:{server.server_address[1]}/", tmp_path, wait_ms=4_000)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "<title>refused 0 refused refused</title>" in title
    assert node.ask("GET", "/-/v1/streams/orders/records").body["records"] == held
    assert all(token["name"] != "mine" for token in node.ask("GET", "/-/v1/tokens").body["tokens"])


def browsed(url: str, folder: Path, *, wait_ms: int = 0) -> str:
    """A page as the browser has it, whatever its status."""
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    later = [f"--virtual-time-budget={wait_ms}"] if wait_ms else []
    return subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--disable-gpu",
            "--dump-dom",
            *later,
            *sandbox,
            f"--user-data-dir={folder}",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
