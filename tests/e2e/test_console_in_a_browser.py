"""The console in a real browser: its own policy lets it show all it has, and nothing else runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
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
        each.chmod(0o755)
    file = folder / "desk.py"
    file.write_text(APP)
    with serving(file, folder / "data") as found:
        for value in (5, 0, "<script>document.title='owned'</script>"):
            found.ask("POST", "/streams/orders", value)
        deadline = time.monotonic() + 20
        while len(found.ask("GET", "/dead").body["dead"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found


def shown(node: Served, path: str, folder: Path) -> str:
    """The page as the browser has understood it; whatever its policy refused fails the test."""
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    done = subprocess.run(
        [BROWSER, "--headless=new", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", *sandbox,
         f"--user-data-dir={folder}", f"{node.url}{path}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
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
