"""What a connection makes of bytes: the same requests however they are cut, known or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.cors import Headers
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.http.server.connection_limits import ConnectionLimits
from headrace.http.server.fast_path import Caller
from headrace.http.server.http1 import Connection
from headrace.http.server.server_state import ServerState, Timeouts
from headrace.security.access import Peer

Seen = tuple[str, str, bytes]


class Desk:
    """Answers every request with its number; paths that begin with `/soon` as plain calls."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.started: list[Seen] = []
        self.later: list[Callable[[], None]] = []
        self.at_once = True
        self.hung_up = 0

    def _answer(self, seen: Seen) -> Response:
        self.seen.append(seen)
        return Response(200, b"%d" % len(self.seen))

    def begin(self, head: RequestHead, body: bytes, peer: Peer, caller: Caller) -> Desk | None:
        if not head.path.startswith("/soon"):
            return None
        seen = (head.method, head.path, body)
        self.started.append(seen)
        response = self._answer(seen)
        if self.at_once:
            caller.reply(response, ())
        else:
            self.later.append(lambda: caller.reply(response, ()))
        return self

    def hang_up(self) -> None:
        self.hung_up += 1

    async def answer(self, request: IncomingRequest) -> tuple[Response, Headers] | None:
        return self._answer((request.method, request.path, await request.body())), ()


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.holding: list[str] = []

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.holding.append("reading")

    def resume_reading(self) -> None:
        self.holding.clear()

    @property
    def answers(self) -> list[int]:
        """The bodies of the answers."""
        return [int(part.partition(b"\r\n\r\n")[2]) for part in self.sent.split(b"HTTP/1.1 ")[1:]]


def opened(desk: Desk) -> tuple[ServerState, Connection, Wire]:
    """A connection to the desk."""
    server = ServerState(
        desk,
        admission=Admission(),
        tasks=Tasks(lambda name, error: None),
        clock=SystemClock(),
        timeouts=Timeouts(),
        connection_limits=ConnectionLimits(8, 8),
        identify=lambda _: Peer("127.0.0.1"),
    )
    connection, wire = Connection(server), Wire()
    connection.connection_made(cast(asyncio.Transport, wire))
    return server, connection, wire


async def fed(connection: Connection, wire: Wire, parts: list[bytes]) -> None:
    """Hand the parts over, as fast as the connection takes them."""
    for part in parts:
        for _ in range(200):
            if not wire.holding:
                break
            await asyncio.sleep(0)
        connection.data_received(part)
    for _ in range(200):
        await asyncio.sleep(0)


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
"""What a JDK client sends with its first request."""
WEBSOCKET = b"Upgrade: websocket\r\nConnection: upgrade\r\nsec-websocket-version: 13\r\n"


def raw(path: str, body: bytes | None, extra: bytes = b"", *, chunked: bool = False) -> bytes:
    head = b"%b HTTP/1.1\r\nhost: a\r\n%b" % (path.encode(), extra)
    if body is None:
        return b"GET %b\r\n" % head
    if chunked:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return b"POST %btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunk)
    return b"POST %bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["/soon", "/soon/2", "/late"]),
        st.sampled_from([None, b"", b"1", b"\r\n", b"GET /late HTTP/1.1\r\n\r\n", b"22"]),
        st.sampled_from([b"", H2C, WEBSOCKET, b"connection: upgrade\r\n", b"upgrade: h2c\r\n"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(REQUESTS, st.lists(st.integers(1, 80), min_size=1), st.booleans())
def test_requests_are_the_same_however_their_bytes_are_cut(
    wanted: list[tuple[str, bytes | None, bytes, bool]], cuts: list[int], whole: bool
) -> None:
    async def run() -> None:
        desk = Desk()
        server, connection, wire = opened(desk)
        parts = [raw(path, body, extra, chunked=chunked) for path, body, extra, chunked in wanted]
        if not whole:
            data, parts, at = b"".join(parts), [], 0
            while at < len(data):
                size = cuts[len(parts) % len(cuts)]
                parts.append(data[at : at + size])
                at += size
        await fed(connection, wire, parts)
        assert desk.seen == [
            ("GET" if body is None else "POST", path, body or b"") for path, body, _, _ in wanted
        ]
        assert wire.answers == list(range(1, len(wanted) + 1))
        assert not wire.closed
        connection.connection_lost(None)
        await server.tasks.close()

    asyncio.run(run())


@pytest.mark.parametrize("asked", [H2C, WEBSOCKET])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_behind_an_upgrade_is_read_and_so_is_the_next_request(
    asked: bytes, chunked: bool
) -> None:
    async def run() -> None:
        desk = Desk()
        server, connection, wire = opened(desk)
        await fed(
            connection, wire, [raw("/late", b"12", asked, chunked=chunked) + raw("/soon", b"3")]
        )
        assert desk.seen == [("POST", "/late", b"12"), ("POST", "/soon", b"3")]
        assert wire.answers == [1, 2]
        assert not wire.closed
        connection.connection_lost(None)
        await server.tasks.close()

    asyncio.run(run())


@pytest.mark.parametrize("target", ["http://a", "http://a:80/", "http://a?x=1"])
def test_an_absolute_target_without_a_path_means_the_root(target: str) -> None:
    async def run() -> None:
        desk = Desk()
        server, connection, wire = opened(desk)
        await fed(connection, wire, [raw(target, None)])
        assert desk.seen == [("GET", "/", b"")]
        connection.connection_lost(None)
        await server.tasks.close()

    asyncio.run(run())


def test_a_head_that_came_before_is_not_read_again() -> None:
    async def run() -> None:
        desk = Desk()
        server, connection, _ = opened(desk)
        for number in range(5):
            connection.data_received(raw("/soon", b"%d" % number))
        assert [body for _, _, body in desk.seen] == [b"0", b"1", b"2", b"3", b"4"]
        assert len(server.heads) == 1
        # Another connection knows it as well, and needs no task for a plain call.
        other, its_wire = Connection(server), Wire()
        other.connection_made(cast(asyncio.Transport, its_wire))
        other.data_received(raw("/soon", b"5"))
        assert its_wire.answers == [6]
        assert len(server.tasks) == 0

    asyncio.run(run())


def test_what_comes_behind_a_plain_call_waits_for_its_answer() -> None:
    async def run() -> None:
        desk = Desk()
        desk.at_once = False
        server, connection, wire = opened(desk)
        connection.data_received(raw("/soon", b"1"))
        connection.data_received(raw("/late", b"2"))
        connection.data_received(raw("/soon", b"3"))
        await asyncio.sleep(0)
        assert desk.seen == [("POST", "/soon", b"1")]
        assert wire.holding
        desk.later.pop()()
        for _ in range(5):
            await asyncio.sleep(0)
        for answer in desk.later:
            answer()
        assert [body for _, _, body in desk.seen] == [b"1", b"2", b"3"]
        assert wire.answers == [1, 2, 3]
        assert wire.holding == []
        connection.connection_lost(None)
        await server.tasks.close()

    asyncio.run(run())


def test_a_thousand_plain_calls_at_once_are_answered_without_climbing_the_stack() -> None:
    async def run() -> None:
        desk = Desk()
        server, connection, wire = opened(desk)
        connection.data_received(raw("/soon", b"1") * 1_000)
        assert wire.answers == list(range(1, 1_001))
        connection.connection_lost(None)
        await server.tasks.close()

    asyncio.run(run())


def test_an_answer_to_a_client_that_left_goes_nowhere() -> None:
    async def run() -> None:
        desk = Desk()
        desk.at_once = False
        server, connection, wire = opened(desk)
        connection.data_received(raw("/soon", b"1"))
        wire.close()
        connection.connection_lost(None)
        desk.later.pop()()
        assert wire.sent == b""
        assert not server.connections

    asyncio.run(run())


def test_a_plain_call_under_way_is_answered_before_the_server_closes() -> None:
    async def run() -> None:
        desk = Desk()
        desk.at_once = False
        _, connection, wire = opened(desk)
        connection.data_received(raw("/soon", b"1"))
        connection.finish()
        assert not wire.closed
        desk.later.pop()()
        assert wire.answers == [1]
        assert b"connection: close" in wire.sent
        assert wire.closed

    asyncio.run(run())


def test_rubbish_behind_a_plain_call_closes_after_its_answer() -> None:
    async def run() -> None:
        desk = Desk()
        desk.at_once = False
        _, connection, wire = opened(desk)
        connection.data_received(raw("/soon", b"1") + b"\x00rubbish\r\n\r\n")
        assert not wire.closed
        desk.later.pop()()
        assert wire.answers == [1]
        assert wire.closed

    asyncio.run(run())


@pytest.mark.parametrize("answered", [False, True])
def test_a_call_under_way_hears_that_its_client_is_gone(answered: bool) -> None:
    async def run() -> None:
        desk = Desk()
        desk.at_once = False
        server, connection, _ = opened(desk)
        connection.data_received(raw("/soon", b"1"))
        (reply,) = desk.later
        if answered:
            reply()
        connection.connection_lost(None)
        assert desk.hung_up == (0 if answered else 1)
        await server.tasks.close()

    asyncio.run(run())
