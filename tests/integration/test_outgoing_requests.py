"""Requests to other services over real sockets: pooled, whole or not at all, on one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from headrace.bus.http_target import HttpPoster, posts_over
from headrace.client.http_pool import (
    MAX_CONNECTIONS,
    Headers,
    HttpPool,
    ServiceAnswer,
    ServiceRequest,
    UpstreamFailed,
    UpstreamLate,
)
from headrace.model.event import Event
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Returned
from headrace.model.record import Chunk, encode_events
from headrace.model.triggers.bus import HttpTarget
from headrace.security.secrets import Secrets

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def asked(
    upstream: str,
    method: str = "GET",
    *,
    headers: Headers = (),
    seconds: float = 10,
) -> ServiceRequest:
    return ServiceRequest(upstream, method, "/", headers, b"", seconds=seconds, max_bytes=50)


class Service:
    """A service that says the same to everybody, and counts connections and requests.

    Args:
        answer: What it says.
        per_connection: Requests it reads of one connection before it closes it; the last without an answer.
    """

    def __init__(self, answer: bytes = OK, per_connection: int | None = None) -> None:
        self.answer = answer
        self.per_connection = per_connection
        self.connections = 0
        self.heads: list[bytes] = []
        self.silent = False
        self._more = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        served = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                async with self._more:
                    self._more.notify_all()
                served += 1
                if self.per_connection is not None and served > self.per_connection:
                    break
                if not self.silent:
                    writer.write(self.answer)
        writer.close()

    async def has_read(self, requests: int) -> None:
        async with self._more:
            await self._more.wait_for(lambda: len(self.heads) >= requests)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    @contextlib.asynccontextmanager
    async def up(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        try:
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.hang_up()


@pytest.fixture
async def outgoing() -> AsyncIterator[HttpPool]:
    made = HttpPool()
    yield made
    made.close()


@contextlib.asynccontextmanager
async def says_once(answer: bytes, *, then_wait: bool = False) -> AsyncIterator[str]:
    """A service that says one thing to one client, and then closes or keeps silent."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if then_wait:
                await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await ended.wait()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nno", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + b"x" * 99, None),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000, None),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", None),
        (b"this is not HTTP\r\n\r\n", None),
        (b"", None),
    ],
)
async def test_an_answer_is_taken_whole_or_not_at_all(
    outgoing: HttpPool, answer: bytes, expected: bytes | None
) -> None:
    async with says_once(answer) as address:
        if expected is None:
            with pytest.raises(UpstreamFailed):
                await outgoing.ask(asked(address))
        else:
            assert (await outgoing.ask(asked(address))).body == expected


async def test_an_answer_that_is_too_large_is_named_for_it(outgoing: HttpPool) -> None:
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + b"x" * 99
    async with says_once(large) as address:
        with pytest.raises(UpstreamFailed, match="has more than 50 bytes"):
            await outgoing.ask(asked(address))


async def test_who_wants_only_the_status_does_not_mind_a_large_body(outgoing: HttpPool) -> None:
    endless = b"HTTP/1.1 202 Accepted\r\ncontent-length: 9999\r\n\r\n" + b"x" * 99
    async with says_once(endless, then_wait=True) as address:
        ask = ServiceRequest(
            address, "POST", "/", (), b"", seconds=10, max_bytes=50, keeps_body=False
        )
        assert (await outgoing.ask(ask)).status == 202


async def test_a_target_that_drips_holds_its_event_no_longer_than_its_timeout(
    outgoing: HttpPool,
) -> None:
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A byte of the answer now and then: every one of them well within any timeout of a read."""
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b"x" * 999:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = HttpTarget(f"http://127.0.0.1:{port}/in", timeout=0.5)
    event = Chunk("s", 0, 0, 1, encode_events([Event(b"1")]), 0, 0, 1)
    invocation = BatchInvocation("_bus.http.a.b", chunks=(event,), timeout=30, token=1, key="s/0/0")
    # The whole answer would take a minute and a half.
    async with asyncio.timeout(30):
        outcome = await HttpPoster(target, posts_over(outgoing), Secrets({}, {}))(invocation)
        assert isinstance(outcome, Returned)
        assert outcome.error is not None
        assert (outcome.error.kind, outcome.error.retryable) == ("NoAnswer", True)
        # The connection is closed, as the other side finds.
        await gone.wait()
    server.close()
    await server.wait_closed()


async def test_a_service_that_drips_is_given_up_on_one_deadline(outgoing: HttpPool) -> None:
    dripping = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"
    async with says_once(dripping, then_wait=True) as address:
        with pytest.raises(UpstreamLate):
            await outgoing.ask(asked(address, seconds=0.2))


@pytest.mark.parametrize(
    "answer", [OK, b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["with-body", "without"]
)
async def test_one_connection_serves_one_request_after_the_other(
    outgoing: HttpPool, answer: bytes
) -> None:
    service = Service(answer)
    async with service.up() as address:
        for _ in range(20):
            await outgoing.ask(asked(address, "POST"))
        assert (service.connections, len(service.heads)) == (1, 20)


async def test_requests_at_once_have_connections_of_their_own(outgoing: HttpPool) -> None:
    service = Service()
    async with service.up() as address:
        await asyncio.gather(*(outgoing.ask(asked(address)) for _ in range(10)))
        assert service.connections == 10
        await asyncio.gather(*(outgoing.ask(asked(address)) for _ in range(10)))
        assert service.connections == 10


async def test_a_connection_that_closed_while_idle_is_not_used_again(outgoing: HttpPool) -> None:
    service = Service()
    async with service.up() as address:
        await outgoing.ask(asked(address, "POST"))
        service.hang_up()
        while service.connections == 1:
            # Whether it is seen before or while the next request is sent, a repeatable one succeeds.
            await outgoing.ask(asked(address))


@pytest.mark.parametrize(
    ("method", "headers", "answered"),
    [("GET", (), True), ("POST", (), False), ("POST", ((b"idempotency-key", b"1"),), True)],
    ids=["get", "post", "post-with-a-key"],
)
async def test_only_what_may_be_sent_twice_is_sent_again(
    outgoing: HttpPool, method: str, headers: Headers, answered: bool
) -> None:
    """The service closes the connection as the second request comes, without an answer."""
    service = Service(per_connection=1)
    async with service.up() as address:
        await outgoing.ask(asked(address))
        again = outgoing.ask(asked(address, method, headers=headers))
        if answered:
            assert (await again).status == 200
        else:
            with pytest.raises(UpstreamFailed, match="without an answer"):
                await again
        assert len(service.heads) == (3 if answered else 2)


async def test_headers_travel_byte_for_byte(outgoing: HttpPool) -> None:
    raw = "é".encode("latin-1") + "é".encode()
    service = Service(b"HTTP/1.1 200 OK\r\nX-Raw: " + raw + b"\r\ncontent-length: 0\r\n\r\n")
    async with service.up() as address:
        answered = await outgoing.ask(asked(address, headers=((b"x-mine", raw), (b"x-mine", b"2"))))
        assert (b"x-raw", raw) in answered.headers
        assert b"x-mine: " + raw + b"\r\nx-mine: 2\r\n" in service.heads[0]


async def test_services_that_hang_do_not_delay_another_one(outgoing: HttpPool) -> None:
    """A hundred requests wait for services that never answer; the healthy one is asked beside them."""
    hanging, healthy = Service(), Service()
    hanging.silent = True
    async with hanging.up() as away, healthy.up() as address:
        waiting = [asyncio.ensure_future(outgoing.ask(asked(away, seconds=60))) for _ in range(100)]
        await hanging.has_read(100)
        for _ in range(20):
            assert (await outgoing.ask(asked(address))).status == 200
        assert not any(each.done() for each in waiting)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_request_beyond_the_bound_of_a_service_waits_within_its_deadline(
    outgoing: HttpPool,
) -> None:
    service = Service()
    service.silent = True
    async with service.up() as address:
        many = [
            asyncio.ensure_future(outgoing.ask(asked(address, seconds=60)))
            for _ in range(MAX_CONNECTIONS)
        ]
        await service.has_read(MAX_CONNECTIONS)
        with pytest.raises(UpstreamLate):
            await outgoing.ask(asked(address, seconds=0.1))
        assert service.connections == MAX_CONNECTIONS
        for each in many:
            each.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        service.silent = False
        assert (await outgoing.ask(asked(address))).status == 200


async def test_tls_is_checked_and_its_connection_kept() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    service = Service()
    async with service.up(server_side) as address:
        outgoing = HttpPool(trusting)
        answers: list[ServiceAnswer] = [await outgoing.ask(asked(address)) for _ in range(3)]
        assert [each.body for each in answers] == [b"ok"] * 3
        assert service.connections == 1
        outgoing.close()
        with pytest.raises(UpstreamFailed, match="certificate"):
            await HttpPool().ask(asked(address))


async def test_who_has_gone_leaves_no_connection_behind(outgoing: HttpPool) -> None:
    service = Service()
    service.silent = True
    async with service.up() as address:
        waiting = asyncio.ensure_future(outgoing.ask(asked(address)))
        await service.has_read(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        service.silent = False
        assert (await outgoing.ask(asked(address))).status == 200
        assert service.connections == 2
