"""HTTP/1.1 on one connection: bytes in, requests out, within bounds and deadlines.

httptools parses what is not known already (`head_cache`), and `order` answers. A connection has 10 s to
bring its headers whole and 30 s more for the body, however slowly the bytes drip; headers, chunk
extensions and trailers are bounded in bytes, requests that wait for their turn and connections in
number. What comes after a request that cannot be read is not looked at. A client that asks for another
protocol (`Upgrade: h2c`, `websocket`) is answered as if it had not asked: its body is read, and so is
what comes behind.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, cast

import httptools

from headrace.http.pipeline.head_cache import END, MAX_KNOWN_BYTES, RequestHead, without_upgrade
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.problem_details import TooSlow, answer_error
from headrace.http.response_writer import CONTINUE, written
from headrace.http.server.request_order import RequestOrder
from headrace.http.server.server_state import ServerState
from headrace.model.errors import HeadraceError, Invalid, Overloaded, TooLarge

MAX_HEADER_BYTES = 65_536
MAX_PIPELINED = 1_024
"""Requests of one connection that wait for the one before them; their client sends no faster."""

# What a connection waits for.
_FIRST: Final = 0
_NEXT: Final = 1
_HEADERS: Final = 2
_BODY: Final = 3
_ANSWER: Final = 4
_METHODS: dict[bytes, str] = {}


class Connection(asyncio.Protocol):
    """One client's connection. Owned by the loop's transport."""

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _FIRST
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loose_bytes = 0
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._client = ""
        self._request_body: RequestBody | None = None
        self._head: RequestHead
        self._heads_read = 0
        self._paused = False

    # -- the transport's side -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for headers, or close at once where there are too many."""
        server = self._server
        self._transport = cast(asyncio.Transport, transport)
        peer = server.identify(transport)
        self._client = peer.address
        self._order = RequestOrder(server, self._transport, peer, self)
        server.connections.add(self)
        if problem := server.connection_limits.enter(self._client):
            self._refuse(Overloaded(problem))
            return
        self._wait_until(self._loop.time() + server.timeouts.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and end what reads or writes."""
        self._server.connections.discard(self)
        self._server.connection_limits.leave(self._client)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._request_body is not None:
            self._request_body.hang_up()
        self._order.hang_up()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        self._order.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._order.resume()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound what does not become a body."""
        order = self._order
        if order.final and self._request_body is None:
            return
        end = 0
        between = self._request_body is None and self._phase != _HEADERS
        if between and (found := data.find(END, 0, MAX_KNOWN_BYTES)) > 0:
            end = found + len(END)
            head = self._server.heads.find(data[:end])
            if head is not None and len(data) - end == head.length and not order.waiting:
                self._arrived(head, data[end:])
                return
        self._heads_read = 0
        self._loose_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if not (order.final and self._request_body is None):
                self._refuse(Invalid(f"this cannot be read as HTTP/1.1: {_root_of(error)}"))
        else:
            self._fed(data, end)
        order.go_on()

    def _feed(self, data: bytes) -> None:
        """Parse; a head that asks for another protocol is read again as if it had not.

        Raises:
            HttpParserError: This is not HTTP/1.1.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                # The parser ends the message behind such a head and leaves its body unread.
                head = without_upgrade(
                    self._parser.get_method(),
                    self._url,
                    self._parser.get_http_version(),
                    self._fields,
                )
                data = head + data[error.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            else:
                return

    def _fed(self, data: bytes, end: int) -> None:
        """Know a head that came with all of its body, and bound what does not become a body."""
        if end and self._heads_read == 1 and self._request_body is None and not self._order.final:
            self._server.heads.keep(data[:end], self._head, len(data) - end)
        if self._loose_bytes > MAX_HEADER_BYTES:
            self._refuse(
                TooLarge(
                    f"the headers (or trailers) have more than {MAX_HEADER_BYTES:,} bytes; "
                    "send less outside the body"
                )
            )
        elif self._due == 0.0:
            timeouts = self._server.timeouts
            seconds = timeouts.headers if self._phase == _HEADERS else timeouts.body
            self._wait_until(self._loop.time() + seconds)

    def _arrived(self, head: RequestHead, body: bytes) -> None:
        """Take a request that is whole, with a head that is known."""
        self._phase = _ANSWER
        self._due = math.inf
        order = self._order
        if order.take(head, body):
            return
        request_body = RequestBody(go_on=self._read_on, invite=None, sender=order.sender_for(head))
        request_body.feed(body)
        request_body.complete()
        self._add(head, request_body)
        order.go_on()

    def _add(self, head: RequestHead, request_body: RequestBody) -> None:
        if self._order.in_hand:
            # Answers go out one after the other: nothing more is read until this one's turn.
            self._hold()
        self._order.add(head, request_body)

    # -- the parser's side --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte: its headers are due."""
        if self._phase != _FIRST:
            self._due = 0.0
        self._phase = _HEADERS
        self._url = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers, which no request needs, are skipped."""
        if self._phase == _HEADERS:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The headers are there: the request can be worked on, and the body is due."""
        self._phase = _BODY
        self._due = 0.0
        self._loose_bytes = 0
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            return  # `_feed` reads it again
        raw = parser.get_method()
        method = _METHODS.get(raw)
        if method is None:
            # The parser knows a few dozen of them, so this does not grow.
            method = _METHODS[raw] = raw.decode("ascii")
        url = self._url
        if url.startswith(b"/") and b"?" not in url and b"#" not in url:
            path, query = url.decode("ascii"), b""
        else:
            path, query = _split(url)
        if self._order.waiting >= MAX_PIPELINED:
            raise Overloaded("too many requests wait on one connection; send them over several")
        headers = dict(self._fields)
        version = parser.get_http_version()
        head = self._head = RequestHead(
            method, path, query, self._fields, headers, modern=version == "1.1"
        )
        self._heads_read += 1
        invite = None
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            invite = self._invite
        request_body = self._request_body = RequestBody(
            go_on=self._read_on, invite=invite, sender=self._order.sender_for(head)
        )
        self._add(head, request_body)
        if not parser.should_keep_alive() or (
            # Without that header only HTTP/1.1 keeps a connection.
            b"connection" in headers and version == "1.0"
        ):
            self._order.final = True

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._loose_bytes = 0
        request_body = self._request_body
        if (
            request_body is not None
            and request_body is not self._order.answered
            and not request_body.feed(body)
        ):
            self._hold()

    def on_message_complete(self) -> None:
        """The request is whole: how long the answer takes is not the client's fault."""
        self._loose_bytes = 0
        self._phase = _ANSWER
        self._due = math.inf
        request_body, self._request_body = self._request_body, None
        if request_body is None:
            return  # a head that is read again
        request_body.complete()
        if request_body is self._order.answered:
            self._order.answered = None
            self.rest()

    # -- reading on ---------------------------------------------------------------------------

    def rest(self) -> None:
        """Wait for the next request, unless it is on its way already."""
        if self._phase == _ANSWER and not self._order.in_hand:
            self._phase = _NEXT
            self._wait_until(self._loop.time() + self._server.timeouts.keep_alive)
        if self._paused:
            self._read_on()

    def _hold(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _invite(self) -> None:
        if not self._transport.is_closing():
            self._server.flush()
            self._transport.write(CONTINUE)

    # -- ending -------------------------------------------------------------------------------

    def _wait_until(self, due: float) -> None:
        """Act at `due`. One timer serves many requests: it is moved only where it comes too late."""
        self._due = due
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        # The loop's timers may be a moment early.
        if self._due > self._loop.time() + 0.001:
            if self._due < math.inf:
                self._timer = self._loop.call_at(self._due, self._look)
            return
        timeouts = self._server.timeouts
        if self._phase == _NEXT:
            self._transport.close()
        elif self._phase == _BODY:
            self._late("body", timeouts.body)
        else:
            self._late("headers", timeouts.headers)

    def _late(self, what: str, seconds: float) -> None:
        self._refuse(TooSlow(f"the request's {what} did not arrive whole within {seconds:g} s"))

    def finish(self) -> None:
        """Close after what is being answered; at once where nothing is."""
        self._order.final = True
        if not self._order.in_hand:
            self._server.flush()
            self._transport.close()

    def cut(self) -> None:
        """Close now; answer 503 to requests that are not answered."""
        if not self._transport.is_closing():
            self._order.cut()
            self._transport.close()

    def _refuse(self, error: HeadraceError) -> None:
        """Say why and close; after the answers to requests that came before, where there are any."""
        if self._transport.is_closing():
            return
        self._server.flush()
        order = self._order
        broken, self._request_body = self._request_body, None
        order.final = True
        self._due = math.inf
        if broken is not None:
            broken.hang_up()
        before = order.in_hand
        if broken is not None and broken is not order.answered:
            before -= 1
        if before:
            self._hold()
            return
        if broken is None or broken is not order.answered:
            self._transport.write(
                written(
                    answer_error(error),
                    ((b"connection", b"close"),),
                    method="GET",
                    last=True,
                    date=self._server.date.line(self._loop.time()),
                )
            )
        self._transport.close()


def _split(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        # An absolute target without a path means the root (RFC 9112, section 3.2.1).
        path, query = parsed.path or b"/", parsed.query or b""
    return path.decode("ascii"), query


def _root_of(error: BaseException) -> BaseException:
    """What a callback raised, which the parser wraps."""
    return error.__context__ or error
