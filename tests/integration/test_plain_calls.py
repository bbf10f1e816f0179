"""Plain calls, which the door answers without a task: on a real node, with real instances."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import memory_gateway, served

from headrace.testing.served import Served

APP = """
from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from headrace import *

app = App("till")


class Sale(msgspec.Struct):
    item: str
    count: int = 1


heard = app.stream("heard")


@app.function(Http("POST", "/echo"), Http("GET", "/echo/{name}"))
def echo(event: Event[Any]):
    return {"value": event.value, "path": Request.of(event).path}


@app.function(Http("POST", "/raw", body=bytes))
def raw(event: Event[bytes]):
    return Reply(event.value, media="application/octet-stream")


@app.function()
def same(event: Event[Any]):
    if event.value == "die":
        os._exit(3)
    if event.value == "fail":
        raise ValueError("as it was told")
    return event.value


@app.function()
def add(event: Event[Any], context: Context):
    total = context.state.get("total", 0) + event.value
    context.state.put("total", total)
    return total


@app.function()
def tell(event: Event[Any], context: Context):
    context.publish(heard, event.value)


@app.function(Http("POST", "/sales", max_bytes=200))
def sell(event: Event[Sale]):
    return event.value.count


@app.function(scaling=Scaling(max=1))
def hold(event: Event[Any]):
    time.sleep(0.5)
    return "held"
"""


class Line:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)

    def ask(self, path: str, body: Any, method: str = "POST") -> tuple[int, Any]:
        """Status and opened body of the answer."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, raw, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        is_json = "json" in answer.headers["Content-Type"]
        return answer.status, json.loads(said) if is_json else said

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("plain"), APP) as node:
        yield node


@pytest.fixture
def line(node: Served) -> Iterator[Line]:
    line = Line(node.url)
    yield line
    line.close()


def metric(node: Served, name: str) -> float:
    """One figure of the node's metrics."""
    text = node.ask("GET", "/metrics").body.decode()
    return float(next(row for row in text.splitlines() if row.startswith(name)).split()[-1])


def test_each_request_of_a_connection_gets_its_own_answer(line: Line) -> None:
    for number in range(120):
        # Heads repeat themselves, bodies do not; and other requests come in between.
        assert line.ask("/-/v1/functions/till.same", {"n": number}) == (200, {"n": number})
        if number % 7 == 0:
            assert line.ask("/-/v1/functions/till.same", None) == (200, None)
            assert line.ask("/-/v1/streams/heard", {"n": number})[0] == 202
        answer = line.ask("/echo", {"n": number % 20})
        assert answer == (200, {"value": {"n": number % 20}, "path": "/echo"})
        assert line.ask("/raw", b"\r\n%d" % number) == (200, b"\r\n%d" % number)
        name = f"a{number % 3}"
        assert line.ask(f"/echo/{name}", None, "GET") == (
            200,
            {"value": {"name": name}, "path": f"/echo/{name}"},
        )


def test_state_is_committed_before_the_answer_and_no_change_is_lost(node: Served) -> None:
    def work(_: int) -> list[int]:
        line = Line(node.url)
        try:
            answers = [line.ask("/-/v1/functions/till.add", 1) for _ in range(25)]
        finally:
            line.close()
        # Under contention some give up; they have added nothing.
        assert {status for status, _ in answers} <= {200, 409}
        return [body for status, body in answers if status == 200]

    with ThreadPoolExecutor(4) as threads:
        totals = sorted(total for part in threads.map(work, range(4)) for total in part)
    assert totals == list(range(1, len(totals) + 1))
    assert len(totals) >= 25


def test_what_a_call_publishes_is_there_when_it_is_answered(node: Served, line: Line) -> None:
    for number in range(5):
        assert line.ask("/-/v1/functions/till.tell", {"told": number}) == (200, None)
        page = node.ask("GET", "/-/v1/streams/heard/records?limit=1000").body
        assert {"told": number} in [record["value"] for record in page["records"]]


def test_an_instance_that_dies_takes_only_the_call_that_killed_it(node: Served) -> None:
    begin = threading.Barrier(6)

    def work(number: int) -> list[tuple[int, Any, Any]]:
        line = Line(node.url)
        try:
            begin.wait()
            asked = ["die" if number == 0 and turn % 10 == 5 else turn for turn in range(40)]
            return [(*line.ask("/-/v1/functions/till.same", value), value) for value in asked]
        finally:
            line.close()

    with ThreadPoolExecutor(6) as threads:
        answers = [each for part in threads.map(work, range(6)) for each in part]
    for status, body, value in answers:
        if value == "die":
            assert (status, body["cause"]["kind"]) == (502, "Crashed")
        else:
            assert (status, body) == (200, value)


def test_what_goes_wrong_is_said_as_everywhere(line: Line) -> None:
    status, body = line.ask("/-/v1/functions/till.same", "fail")
    assert (status, body["cause"]["kind"]) == (500, "ValueError")
    for bad in (b'{"a":1,"a":2}', b"{", b"NaN", b"\xff"):
        assert line.ask("/-/v1/functions/till.same", bad)[0] == 400
        assert line.ask("/sales", bad)[0] == 400
    assert line.ask("/-/v1/functions/till.none", 1)[0] == 404
    status, body = line.ask("/sales", {"item": "tea", "count": "two"})
    assert (status, body["errors"][0]["path"]) == (400, "/count")
    assert line.ask("/sales", {"item": "tea", "count": 3}) == (200, 3)
    assert line.ask("/sales", {"item": "t" * 300})[0] == 413


def test_plain_calls_are_counted_and_remembered(node: Served, line: Line) -> None:
    name = 'headrace_http_requests_total{method="POST",route="/sales",status="200"}'
    line.ask("/sales", {"item": "tea"})
    before = metric(node, name)
    for _ in range(5):
        assert line.ask("/sales", {"item": "tea"}) == (200, 1)
    assert metric(node, name) == before + 5
    runs = node.ask("GET", "/-/v1/invocations?function=till.sell&limit=5").body["invocations"]
    assert [run["outcome"] for run in runs] == ["succeeded"] * 5


def test_calls_that_find_no_instance_wait_for_one(node: Served) -> None:
    def work(_: int) -> tuple[int, Any]:
        line = Line(node.url)
        try:
            return line.ask("/-/v1/functions/till.hold", None)
        finally:
            line.close()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [(200, "held")] * 4


async def waits_for(condition: Callable[[], bool]) -> bool:
    """Whether it holds within a few seconds."""
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def test_calls_wait_for_an_instance_without_a_task_and_only_while_their_client_is_there(
    tmp_path: Path,
) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "till.py").write_text(APP)
    async with memory_gateway(tmp_path) as (gateway, node):
        await node.deploy(str(tmp_path / "till.py"))
        lines = [Line(gateway.url) for _ in range(3)]
        asked = [asyncio.to_thread(line.ask, "/-/v1/functions/till.hold", None) for line in lines]
        answers = asyncio.gather(*asked)
        assert await waits_for(lambda: gateway.busy.get("requests") == 3)
        gone = socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])))
        gone.sendall(
            b"POST /-/v1/functions/till.hold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )
        assert await waits_for(lambda: gateway.busy.get("requests") == 4)
        assert "tasks" not in gateway.busy
        gone.close()
        assert await waits_for(lambda: gateway.busy.get("requests") == 3)
        assert await answers == [(200, "held")] * 3
        assert await asyncio.to_thread(lines[0].ask, "/-/v1/functions/till.hold", None) == (
            200,
            "held",
        )
        runs = await asyncio.to_thread(
            lines[0].ask, "/-/v1/invocations?function=till.hold", None, "GET"
        )
        assert len(runs[1]["invocations"]) == 4
        for line in lines:
            line.close()
        assert await waits_for(lambda: gateway.busy == {})


async def test_calls_that_wait_when_their_app_is_deployed_anew_run_in_the_new_version(
    tmp_path: Path,
) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    app = tmp_path / "till.py"
    app.write_text(APP)
    async with memory_gateway(tmp_path) as (gateway, node):
        await node.deploy(str(app))
        lines = [Line(gateway.url) for _ in range(6)]
        asked = [asyncio.to_thread(line.ask, "/-/v1/functions/till.hold", None) for line in lines]
        answers = asyncio.gather(*asked)
        assert await waits_for(lambda: gateway.busy.get("requests") == 6)
        app.write_text(APP.replace('return "held"', 'return "held anew"'))
        await node.deploy(str(app))
        assert sorted(body for _, body in await answers)[-1] == "held anew"
        assert {status for status, _ in await answers} == {200}
        for line in lines:
            line.close()


async def test_a_known_head_follows_what_is_deployed(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    app = tmp_path / "shop.py"
    text = (
        "from headrace import *\napp = App('shop')\n\n\n"
        "@app.function(Http('POST', '/price'))\ndef one(event):\n    return 1\n\n\n"
        "@app.function()\ndef two(event):\n    return 2\n"
    )
    app.write_text(text)
    async with memory_gateway(tmp_path) as (gateway, node):
        await node.deploy(str(app))
        line = Line(gateway.url)
        for _ in range(3):
            assert await asyncio.to_thread(line.ask, "/price", None) == (200, 1)
            assert await asyncio.to_thread(line.ask, "/-/v1/functions/shop.two", None) == (200, 2)
        app.write_text(
            text.replace("Http('POST', '/price')", "")
            .replace("function()\ndef two", "function(Http('POST', '/price'))\ndef two")
            .replace("return 2", "return 22")
        )
        await node.deploy(str(app))
        for _ in range(3):
            assert await asyncio.to_thread(line.ask, "/price", None) == (200, 22)
            assert await asyncio.to_thread(line.ask, "/-/v1/functions/shop.one", None) == (200, 1)
        line.close()
        for _ in range(200):
            if not gateway.busy:
                break
            await asyncio.sleep(0.01)
        assert gateway.busy == {}


async def test_a_call_under_way_is_answered_when_the_door_closes(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "till.py").write_text(APP)
    async with memory_gateway(tmp_path) as (gateway, node):
        await node.deploy(str(tmp_path / "till.py"))
        lines = [Line(gateway.url) for _ in range(2)]
        asked = [
            asyncio.create_task(asyncio.to_thread(line.ask, f"/-/v1/functions/till.{name}", 1))
            for line, name in zip(lines, ("hold", "add"), strict=True)
        ]
        await asyncio.sleep(0.2)
        await gateway.stop(5.0)
        assert await asyncio.gather(*asked) == [(200, "held"), (200, 1)]
        assert gateway.busy == {}
        for line in lines:
            line.close()
