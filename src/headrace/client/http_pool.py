"""Requests to other services over pooled HTTP/1.1 connections: proxies, legacy shares, HTTP targets.

In: an address, a method, a target, headers and a body. Out: the answer, its headers and body byte for
byte as they came, without what concerns one hop only. Redirects are not followed and bodies are not
decompressed. A service that is away, late or endless is an error of the family, never a task that
hangs: one deadline covers waiting for a connection, connecting, sending and reading.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

import httptools
import msgspec

from headrace.model.errors import Unavailable

CONNECT_S = 5.0
IDLE_S = 30.0
MAX_CONNECTIONS = 128
"""Open connections to one service; further requests wait for one, within their deadline."""
MAX_IDLE = 32
"""Connections to one service that are kept open for the next request."""
MAX_HEAD_BYTES = 128 << 10
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

Headers = tuple[tuple[bytes, bytes], ...]


class UpstreamFailed(Unavailable):
    """Another service is away, or what it sent is not a whole HTTP answer."""

    code: ClassVar[str] = "upstream-failed"


class UpstreamLate(Unavailable):
    """Another service did not answer in time."""

    code: ClassVar[str] = "upstream-late"


class ServiceRequest(msgspec.Struct, frozen=True):
    """A request to another service.

    Attributes:
        upstream: `http://host:port/base` or `https://...`.
        method: The method, in capitals.
        target: Path and query, put behind the path of `upstream`.
        headers: Sent as they are; `host` and `content-length` are added.
        body: The body.
        seconds: Until the answer must be whole.
        max_bytes: Of the answer's body.
        keeps_body: Whether a larger body is an error; otherwise only the status matters, and what
            is over is not read.
    """

    upstream: str
    method: str
    target: str
    headers: Headers
    body: bytes
    seconds: float
    max_bytes: int
    keeps_body: bool = True


class ServiceAnswer(msgspec.Struct, frozen=True):
    """Answer of a service: status, end-to-end headers (names in small letters), and body."""

    status: int
    headers: Headers
    body: bytes


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that are meant for the other end, names in small letters (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        each.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for each in value.split(b",")
    }
    return tuple(
        (name, value) for name, value in lowered if name not in HOP_BY_HOP and name not in named
    )


class HttpPool:
    """All connections of a node to other services. Owned by assembly; called from its event loop only."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._services: dict[_Origin, _Service] = {}
        self._tls = tls
        self._making_tls = asyncio.Lock()

    async def ask(self, ask: ServiceRequest) -> ServiceAnswer:
        """Ask the service and take its whole answer.

        Raises:
            UpstreamFailed: It is away, broke off, or its answer is too large or is not HTTP.
            UpstreamLate: It took longer than `ask.seconds`.
        """
        parts = urlsplit(ask.upstream)
        origin = _origin_of(parts)
        service = self._services.setdefault(origin, _Service())
        try:
            async with asyncio.timeout(ask.seconds), service.slots:
                return await self._exchange(origin, service, ask, _written(ask, parts))
        except TimeoutError as error:
            raise UpstreamLate(
                f"the service at `{parts.netloc}` did not answer within {ask.seconds:g} s"
            ) from error
        except (OSError, ssl.SSLError) as error:
            why = str(error) or type(error).__name__
            raise UpstreamFailed(
                f"the service at `{parts.netloc}` cannot be asked: {why}"
            ) from error

    def close(self) -> None:
        """Close every idle connection; those in use close with their requests."""
        for service in self._services.values():
            while service.idle:
                service.idle.pop().close()

    async def _exchange(
        self, origin: _Origin, service: _Service, ask: ServiceRequest, written: bytes
    ) -> ServiceAnswer:
        if (kept := service.take()) is not None:
            try:
                return await self._over(kept, service, ask, written)
            except UpstreamFailed:
                # Without a byte of an answer it closed an idle connection just as this request went
                # out. Only what may be sent twice is sent again (RFC 9110, 9.2.2; a client that
                # gives a key allows it).
                if kept.has_answered or not _may_repeat(ask):
                    raise
        async with asyncio.timeout(min(CONNECT_S, ask.seconds)):
            fresh = await self._connect(origin)
        return await self._over(fresh, service, ask, written)

    async def _over(
        self, connection: _Connection, service: _Service, ask: ServiceRequest, written: bytes
    ) -> ServiceAnswer:
        try:
            answered = await connection.send(ask, written)
        except BaseException:
            connection.close()
            raise
        service.keep(connection)
        return answered

    async def _connect(self, origin: _Origin) -> _Connection:
        tls = await self._context() if origin.scheme == "https" else None
        _, protocol = await asyncio.get_running_loop().create_connection(
            _Connection, origin.host, origin.port, ssl=tls
        )
        return protocol

    async def _context(self) -> ssl.SSLContext:
        """The one TLS context: reading the system's certificates takes longer than many requests."""
        async with self._making_tls:
            if self._tls is None:
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            return self._tls


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class _Service:
    """The connections to one origin: a bound for those in use, and those that wait for work."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self.idle: deque[_Connection] = deque()

    def take(self) -> _Connection | None:
        """The connection used last that is still open: others may reach their idle time."""
        while self.idle:
            connection = self.idle.pop()
            if connection.take_up():
                return connection
        return None

    def keep(self, connection: _Connection) -> None:
        """Keep it for the next request where both sides allow."""
        if not connection.is_reusable:
            connection.close()
            return
        if len(self.idle) >= MAX_IDLE:
            self.idle.popleft().close()
        connection.rest()
        self.idle.append(connection)


class _Connection(asyncio.Protocol):
    """One connection: idle <-> sending and reading -> closed. One request at a time."""

    def __init__(self) -> None:
        self._open = False
        self._answer: _Answer | None = None
        self._expires: asyncio.TimerHandle | None = None
        self.is_reusable = False
        self.has_answered = False

    # --- for the pool -----------------------------------------------------------------------

    async def send(self, ask: ServiceRequest, written: bytes) -> ServiceAnswer:
        """Send the request and read its answer."""
        answer = self._answer = _Answer(ask)
        self.is_reusable = self.has_answered = False
        if not self._open:
            raise UpstreamFailed("the service closed the connection")
        # It may answer, and close, before it has read all: then its answer counts.
        self._transport.write(written)
        try:
            await answer.whole
        finally:
            self._answer = None
        self.is_reusable = answer.keeps_alive and not self._transport.is_closing()
        return ServiceAnswer(answer.status, end_to_end(answer.headers), bytes(answer.body))

    def rest(self) -> None:
        """Wait for the next request, for a while."""
        self._expires = asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def take_up(self) -> bool:
        """End the rest; whether the connection may be used."""
        if self._expires is not None:
            self._expires.cancel()
            self._expires = None
        return self._open

    def close(self) -> None:
        """Close without waiting for the other side."""
        self._open = False
        if self._expires is not None:
            self._expires.cancel()
        self._transport.abort()

    # --- for the event loop -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # No request was sent: whatever it is, it is not the answer to the next request.
            self.close()
        else:
            self.has_answered = True
            self._answer.feed(data)

    def eof_received(self) -> bool:
        # False: the transport closes itself, and says so by `connection_lost`.
        self._open = False
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        if self._answer is not None:
            self._answer.end(error)


class _Answer:
    """An answer as it comes in; `whole` is done when it has ended, well or not."""

    def __init__(self, ask: ServiceRequest) -> None:
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.keeps_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._ask = ask
        self._received = 0
        self._in_body = False

    def feed(self, part: bytes) -> None:
        """Read on."""
        if self.whole.done():
            self.keeps_alive = False
            return
        self._received += len(part)
        if not self._in_body and self._received > MAX_HEAD_BYTES:
            self._fail(UpstreamFailed("the service's headers have no end"))
            return
        try:
            self._parser.feed_data(part)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # What comes behind an answer that is whole, such as a body of a 204, means nothing.
            self.keeps_alive = False
            self._fail(UpstreamFailed(f"the service does not answer in HTTP/1.1: {error}"))

    def end(self, error: Exception | None) -> None:
        """The connection has closed."""
        if not self._received:
            self._fail(UpstreamFailed("the service closed the connection without an answer"))
            return
        named = {name.lower() for name, _ in self.headers}
        if (
            error is None
            and self._in_body
            and not named & {b"content-length", b"transfer-encoding"}
        ):
            # Without a length the end of the connection is the end of the body.
            self._succeed()
        else:
            self._fail(UpstreamFailed("the service broke off in the middle of its answer"))

    # --- for the parser ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            # Informational: the answer is yet to come (RFC 9110, 15.2).
            self.headers.clear()
            return
        self._in_body = True
        if self._ask.method == "HEAD":
            # The parser does not know what was asked, and would wait for a body.
            self._succeed()

    def on_body(self, part: bytes) -> None:
        if len(self.body) + len(part) <= self._ask.max_bytes:
            self.body += part
        elif self._ask.keeps_body:
            most = self._ask.max_bytes
            self._fail(UpstreamFailed(f"the service's answer has more than {most:,} bytes"))
        else:
            self._succeed()

    def on_message_complete(self) -> None:
        if self.status >= 200 and not self.whole.done():
            self.keeps_alive = self._parser.should_keep_alive()
            self._succeed()

    def _succeed(self) -> None:
        if not self.whole.done():
            self.whole.set_result(None)

    def _fail(self, error: UpstreamFailed) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)


def _origin_of(parts: SplitResult) -> _Origin:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _Origin(parts.scheme, parts.hostname or "", port)


def _written(ask: ServiceRequest, parts: SplitResult) -> bytes:
    path = parts.path.rstrip("/") + ask.target
    lines = [
        f"{ask.method} {path if path.startswith('/') else f'/{path}'} HTTP/1.1".encode(),
        b"host: " + parts.netloc.rpartition("@")[2].encode(),
        b"content-length: %d" % len(ask.body),
        *(
            name + b": " + value
            for name, value in ask.headers
            if name not in {b"host", b"content-length"}
        ),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + ask.body


def _may_repeat(ask: ServiceRequest) -> bool:
    return ask.method in _REPEATABLE or any(name == b"idempotency-key" for name, _ in ask.headers)
