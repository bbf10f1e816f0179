"""Answers that are sent while their function runs, on a real node, read byte by byte."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.integration.gateway_nodes import serving, wait_for
from tests.integration.runtime_fleets import parent_of

from headrace.testing.served import ask

APP = '''
from __future__ import annotations

import asyncio
import time

from headrace import *

app = App("live")
out = app.stream("out")


@app.function(Http("GET", "/live/count", mode="live", headers=("x-fail",)), output=out)
def count(event: Event, context: Context):
    """Yields 0 and waits until somebody says go on; keeps how far it came."""
    query = Request.of(event).query
    for number in range(int(query.get("n", "3"))):
        if query.get("fail") == str(number):
            raise ValueError("poison")
        yield {"i": number}
        if query.get("die") == str(number):
            import os
            os._exit(3)
        time.sleep(float(query.get("wait", "0")))
    context.state.put(query["name"], True)


@app.function(Http("GET", "/live/waits", mode="live"))
def waits(event: Event):
    yield "begun"
    time.sleep(float(Request.of(event).query.get("wait", "0")))
    yield "over"


@app.function(Http("GET", "/live/words", mode="live", cors=Cors("https://a.test")))
async def words(event: Event):
    yield Reply(media="text/plain", headers={"x-words": "4"})
    for word in ("to", "be", "or", "not"):
        yield word + " "
        await asyncio.sleep(0.01)


@app.function(Http("GET", "/live/megabytes", mode="live", timeout=60.0), timeout=60.0)
def megabytes(event: Event, context: Context):
    yield Reply(media="application/octet-stream")
    for number in range(64):
        yield bytes(1 << 20)
        context.logger.info("sent %d", number)


@app.function(Http("GET", "/live/raced", mode="live"))
def raced(event: Event, context: Context):
    """Relies on what another call changes meanwhile."""
    seen = context.state.get("raced", 0)
    if event.value.get("talks"):
        yield "begun"
    time.sleep(float(event.value.get("wait", "0")))
    context.state.put("raced", seen + 1)


counts = app.store("counts", int, default=0)


@app.function(Http("GET", "/live/visits", mode="live"))
def visits(event: Event, context: Context):
    yield "begun"
    yield context.store(counts).update("visits", lambda known: known + 1)


@app.function(Http("GET", "/live/visited"))
def visited(event: Event, context: Context):
    return context.store(counts).update("visits", lambda known: known + 1)
'''


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("live"), app=APP) as address:
        yield address


@contextlib.contextmanager
def asked(url: str, path: str, **headers: str) -> Iterator[HTTPResponse]:
    """The answer's head has come; its parts may be on their way."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        yield connection.getresponse()
    finally:
        connection.close()


def kept(url: str, name: str) -> bool:
    """Whether the call of that name has committed."""
    return ask("GET", f"{url}/-/v1/state/live/live.count/{name}").status == 200


def published(url: str) -> int:
    """How many outputs there are."""
    [extent] = ask("GET", f"{url}/-/v1/streams/out").body["extents"]
    count: int = extent["high"]
    return count


def test_the_first_part_comes_while_the_function_runs_and_the_end_with_the_commit(url: str) -> None:
    with asked(url, "/live/count?name=a&wait=0.5") as answer:
        assert answer.readline() == b'{"i":0}\n'
        assert not kept(url, "a")
        assert answer.read() == b'{"i":1}\n{"i":2}\n'
        assert kept(url, "a")


def test_a_failure_in_the_middle_cuts_the_answer_and_leaves_nothing_behind(url: str) -> None:
    before = published(url)
    for how in ("fail", "die"):
        with asked(url, f"/live/count?name={how}&{how}=1") as answer:
            assert answer.status == 200
            with pytest.raises(IncompleteRead):
                answer.read()
    assert not kept(url, "fail")
    assert not kept(url, "die")
    assert published(url) == before


def test_an_answer_that_has_begun_fails_with_its_zygote_and_does_not_begin_again(url: str) -> None:
    with asked(url, "/live/waits?wait=10") as answer:
        assert answer.readline() == b'"begun"\n'
        # The handler itself knows no numbers that mean anything out here.
        shown = ask("GET", f"{url}/-/v1/instances").body["instances"]
        [instance] = [each["pid"] for each in shown if each["function"] == "live.waits"]
        zygote = parent_of(instance)
        assert b"headrace" in Path(f"/proc/{zygote}/cmdline").read_bytes()
        os.kill(zygote, signal.SIGKILL)
        with pytest.raises(IncompleteRead) as cut:
            answer.read()
        assert cut.value.partial == b""
    # The function itself goes on under another zygote.
    with asked(url, "/live/waits") as answer:
        assert answer.read() == b'"begun"\n"over"\n'


def test_a_failure_before_the_first_part_is_an_ordinary_answer(url: str) -> None:
    with asked(url, "/live/count?name=b&fail=0") as answer:
        assert answer.status == 500
        assert json.loads(answer.read())["cause"]["message"] == "poison"


def test_events_tell_a_browser_how_it_ended(url: str) -> None:
    with asked(url, "/live/count?name=c&n=1", accept="text/event-stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.read() == b'data: {"i":0}\n\nevent: committed\ndata: {}\n\n'
    with (
        asked(url, "/live/count?name=d&fail=1", accept="text/event-stream") as answer,
        pytest.raises(IncompleteRead) as cut,
    ):
        answer.read()
    assert b"event: failed\ndata: {" in cut.value.partial


def test_a_reply_first_sets_status_and_media_and_parts_are_raw(url: str) -> None:
    with asked(url, "/live/words", origin="https://a.test") as answer:
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-words"] == "4"
        assert answer.headers["access-control-allow-origin"] == "https://a.test"
        assert answer.read() == b"to be or not "


def test_a_connection_is_kept_for_the_next_request(url: str) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
    for _ in range(3):
        connection.request("GET", "/live/words")
        assert connection.getresponse().read() == b"to be or not "
    connection.close()


def test_pipelined_answers_keep_their_order(url: str) -> None:
    host, _, port = urlsplit(url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        one = b"GET /live/count?name=p&n=%d HTTP/1.1\r\nhost: localhost\r\n"
        client.sendall(one % 2 + b"\r\n" + one % 1 + b"connection: close\r\n\r\n")
        said = b""
        while data := client.recv(65_536):
            said += data
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.count(b"\r\n0\r\n\r\n") == 2
    assert said.index(b'{"i":1}') < said.rindex(b"HTTP/1.1 200 OK")


def test_a_client_that_could_not_tell_the_end_gets_the_answer_whole(url: str) -> None:
    host, _, port = urlsplit(url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(b"GET /live/count?name=old HTTP/1.0\r\nhost: localhost\r\n\r\n")
        said = b""
        while data := client.recv(65_536):
            said += data
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-length: 24" in head
    assert body == b'{"i":0}\n{"i":1}\n{"i":2}\n'
    connection = HTTPConnection(f"{host}:{port}", timeout=20)
    connection.request("HEAD", "/live/count?name=head")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_repeated_key_gets_the_whole_answer_and_runs_nothing(url: str) -> None:
    before = published(url)
    for _ in range(2):
        with asked(url, "/live/count?name=e", idempotency_key="once") as answer:
            assert answer.read() == b'{"i":0}\n{"i":1}\n{"i":2}\n'
    assert published(url) == before + 3


def test_a_client_that_goes_stops_nothing(url: str) -> None:
    with asked(url, "/live/count?name=f&n=4&wait=0.1") as answer:
        answer.readline()
    assert wait_for(lambda: kept(url, "f"))


def test_a_slow_reader_holds_its_function_back_and_not_the_memory(url: str) -> None:
    def sent() -> int:
        said = ask("GET", f"{url}/-/v1/logs?function=live.megabytes&limit=100").body["logs"]
        return sum(line["text"].startswith("sent ") for line in said)

    with asked(url, "/live/megabytes") as answer:
        wait_for(lambda: sent() > 0)
        time.sleep(0.5)
        # What is sent and not read is in the kernel's buffers; of 64 MiB most are still to be made.
        assert sent() < 32
        assert len(answer.read()) == 64 << 20


def test_state_that_changes_under_it_runs_it_again_unless_something_was_sent(url: str) -> None:
    def raced() -> int:
        return int(ask("GET", f"{url}/-/v1/state/live/live.raced/raced").body["value"])

    with asked(url, "/live/raced?wait=1&talks=yes") as talking:
        assert talking.readline() == b'"begun"\n'
        ask("GET", f"{url}/live/raced")
        with pytest.raises(IncompleteRead):
            talking.read()
    assert raced() == 1
    with ThreadPoolExecutor(1) as thread:
        silent = thread.submit(lambda: ask("GET", f"{url}/live/raced?wait=1"))
        time.sleep(0.3)
        ask("GET", f"{url}/live/raced")
        assert silent.result().body == b""
    assert raced() == 3


def test_what_another_function_wrote_before_is_no_change_under_it(url: str) -> None:
    for count in range(1, 9, 2):
        with asked(url, "/live/visits") as answer:
            assert answer.read() == b'"begun"\n%d\n' % count
        assert ask("GET", f"{url}/live/visited").body == count + 1
