"""A node whose disk is full starts no process, says so, and goes on by itself once there is room."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.integration.faults.disks import small
from tests.integration.faults.full_disks import fill
from tests.integration.faults.processes import wait_until
from tests.integration.faults.sites import Site
from tests.integration.runtime_fleets import House, house, parent_of

from headrace.client.address import read_key
from headrace.model.errors import Unavailable
from headrace.model.outcome import Returned

SIZE_BYTES = 64 << 20
FILES = 300
SHOP = """
from headrace import App, Event, Http
shop = App("shop", owner="tests")
orders, made = shop.stream("orders"), shop.stream("made")
@shop.function(orders, output=made)
def make(event: Event, context):
    return {"n": event.value["n"]}
@shop.function(Http("GET", "/hello"))
def hello(event: Event, context):
    return "there"
"""


def ask(site: Site, path: str, body: bytes | None = None) -> tuple[int, str, Any]:
    """Status, `Retry-After` and text of one answer to the operator, who may read why something fails."""
    url = urlsplit(json.loads((site.data / "node.json").read_bytes())["url"])
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
    try:
        operator = {"authorization": f"Bearer {read_key(site.data)}"}
        connection.request("GET" if body is None else "POST", path, body, operator)
        answer = connection.getresponse()
        return answer.status, answer.getheader("retry-after", ""), answer.read().decode()
    finally:
        connection.close()


def use_up(folder: Path, ended: threading.Event) -> None:
    """Make files until there may be no more, and whenever there may be again until it has ended."""
    folder.mkdir(exist_ok=True)
    for number in itertools.count():
        try:
            (folder / str(number)).touch()
        except OSError:
            if ended.wait(0.001):
                return


@contextlib.contextmanager
def no_files_left(data: Path) -> Iterator[None]:
    """No file can be made in the folder meanwhile."""
    ended = threading.Event()
    hog = threading.Thread(target=use_up, args=(data / "hog", ended))
    hog.start()
    try:
        yield
    finally:
        ended.set()
        hog.join()
        shutil.rmtree(data / "hog")


def has_made(site: Site, count: int) -> bool:
    return len(site.get("/-/v1/streams/made/records")["records"]) >= count


@pytest.mark.root
def test_an_app_runs_again_by_itself_once_there_is_room_for_its_processes(place: Site) -> None:
    place.write(SHOP)
    with small(place.data, SIZE_BYTES, files=FILES):
        try:
            place.start()
            assert ask(place, "/hello")[0] == 200
            instance = place.instances("shop.hello")[0]["pid"]
            with no_files_left(place.data):
                os.kill(parent_of(instance), 9)
                wait_until(
                    lambda: ask(place, "/hello")[0] == 503,
                    seconds=20,
                    every=0.1,
                    what=lambda: f"the route is answered 503 {place.said()}",
                )
                status, retry_after, text = ask(place, "/hello")
                assert (status, int(retry_after) > 0) == (503, True), text
                status, _, text = ask(place, "/readyz")
                assert status == 503
                assert json.loads(text)["reason"] == "`shop` cannot run"
                assert "No space left on device" in json.loads(text)["checks"]["app shop"]
                assert ask(place, "/-/v1/streams/orders", b'{"n": 1}')[0] == 202
            wait_until(
                lambda: ask(place, "/readyz")[0] == 200,
                seconds=30,
                every=0.1,
                what=lambda: f"the app runs again {place.said()}",
            )
            assert ask(place, "/hello")[0] == 200
            place.wait_drained(30)
            assert has_made(place, 1)
            place.stop()
        finally:
            place.close()


def no_files(data: Path) -> None:
    ended = threading.Event()
    ended.set()
    use_up(data / "hog", ended)


def no_bytes(data: Path) -> None:
    fill(data / "hog")
    with (data / "hog").open("ab", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break


@pytest.mark.root
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "used"])
@pytest.mark.parametrize("exhaust", [no_files, no_bytes])
def test_a_node_that_is_started_on_a_full_disk_says_so_in_a_sentence(
    place: Site, exhaust: Callable[[Path], None], is_new: bool
) -> None:
    place.write(SHOP)
    with small(place.data, SIZE_BYTES, files=FILES):
        try:
            if not is_new:
                place.start()
                ask(place, "/-/v1/streams/orders", b'{"n": 1}')
                place.stop()
                (place.data / "headrace.reserve").unlink(missing_ok=True)
            exhaust(place.data)
            place.log_path.unlink(missing_ok=True)
            place.launch()
            assert place._popen is not None
            try:
                code = place._popen.wait(timeout=20)
            except subprocess.TimeoutExpired:
                code = 0
            said = place.said()
            assert code == 1, said
            assert "Traceback" not in said
            assert "headrace: " in said
            assert "space" in said
        finally:
            place.close()


async def run_on(home: House, function: str, times: int) -> None:
    """Run it one time after the other."""
    for _ in range(times):
        assert isinstance(await home.run(function), Returned)


@pytest.mark.root
async def test_a_run_is_not_blamed_for_an_instance_that_finds_no_room(tmp_path: Path) -> None:
    tmp_path.chmod(tmp_path.stat().st_mode | 0o755)  # noqa: ASYNC240 - nothing else runs on this loop
    with small(tmp_path / "disk", SIZE_BYTES, files=60):
        async with house(tmp_path / "disk") as home:
            await home.deploy("""
@app.function(orders, scaling=Scaling(max_invocations=1))
def price(events, context): pass
""")
            assert isinstance(await home.run("price"), Returned)
            with no_files_left(tmp_path / "disk"):
                # The next one's folder was made ahead of need, and what the last one left is cleared
                # away meanwhile, which may make room for another.
                with pytest.raises(Unavailable, match="could not be set up"):
                    await run_on(home, "price", 50)
                assert any("No space left on device" in line for line in home.said())
            assert isinstance(await home.run("price"), Returned)
