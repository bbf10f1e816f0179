"""A service that answers by the way before it answers: the final status counts."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from headrace.bus.http_target import HttpRequest, posts_over
from headrace.client.final_response import MAX_INTERIM, FinalConnection
from headrace.client.http_pool import HttpPool

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
FINAL = b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n"
ANSWERS = pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HINTS + FINAL % 200, 200),
        (HINTS * 3 + FINAL % 503, 503),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + FINAL % 204, 204),
        (b"HTTP/1.1 102 Processing\r\n\r\n" + FINAL % 200, 200),
        (FINAL % 202, 202),
    ],
)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a service that gives one request `answer`, to the byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                connection.recv(65_536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        thread.join(10)


def asked(url: str) -> int:
    """The status that the command line's client meets."""
    parts = urlsplit(url)
    connection = FinalConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("POST", "/x", body=b"{}")
        return connection.getresponse().status
    finally:
        connection.close()


@ANSWERS
async def test_the_final_status_decides_about_an_event_that_is_posted(
    answer: bytes, status: int
) -> None:
    outgoing = HttpPool()
    with answering(answer) as url:
        assert await posts_over(outgoing)(HttpRequest(url, {}, b"{}", 10.0)) == status
        outgoing.close()


@ANSWERS
async def test_the_final_status_is_what_the_client_of_a_node_is_told(
    answer: bytes, status: int
) -> None:
    with answering(answer) as url:
        assert await asyncio.to_thread(asked, url) == status


async def test_a_node_that_never_comes_to_its_answer_gives_none() -> None:
    with (
        answering(HINTS * (MAX_INTERIM + 1)) as url,
        pytest.raises(http.client.HTTPException, match="informational"),
    ):
        await asyncio.to_thread(asked, url)
