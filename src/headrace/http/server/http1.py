"""HTTP/1.1 on one connection: bytes in, requests out, within bounds and deadlines.

httptools parses heads that `head_cache` does not know, and `RequestOrder` answers. A client has 10 s to send
its headers and 30 s more for the body, however slowly the bytes arrive. Headers, chunk extensions and
trailers are bounded in bytes, waiting requests and connections in number. Bytes after a request that cannot
be parsed are ignored. A client that offers another protocol (`Upgrade: h2c`, `websocket`) is answered as if
it had not: its body is read, and so are the requests after it.
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
"""Pipelined requests of one connection that wait for the one before them; more are refused."""

# What a connection waits for. The phase decides which deadline applies and how its end is answered: an idle
# connection (`_NEXT`) is only closed, every other late one gets a 408 (RFC 9110, section 15.5.9).
_FIRST: Final = 0
_NEXT: Final = 1
_HEADERS: Final = 2
_BODY: Final = 3
_ANSWER: Final = 4
# Methods as text, which saves decoding the same bytes for each request.
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
        """Start the deadline of the headers, or refuse a connection beyond the limits."""
        server = self._server
        self._transport = cast(asyncio.Transport, transport)
        peer = server.identify(transport)
        self._client = peer.address
        self._order = RequestOrder(server, self._transport, peer, self)
        server.connections.add(self)
        if problem := server.connection_limits.enter(self._client):
            # Answered rather than reset: a client that only sees a reset tries again at once.
            self._refuse(Overloaded(problem))
            return
        self._wait_until(self._loop.time() + server.timeouts.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and wake the tasks that read or write."""
        self._server.connections.discard(self)
        self._server.connection_limits.leave(self._client)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._request_body is not None:
            self._request_body.hang_up()
        self._order.hang_up()

    def pause_writing(self) -> None:
        """Hold answers back: the client reads more slowly than it is answered."""
        self._order.pause()

    def resume_writing(self) -> None:
        """Continue: the client has read enough."""
        self._order.resume()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound what does not become a body."""
        order = self._order
        # After an error or `Connection: close` the framing of later bytes is unknown: reading
        # them as a request would allow request smuggling (RFC 9112, section 11.2).
        if order.final and self._request_body is None:
            return
        end = 0
        between = self._request_body is None and self._phase != _HEADERS
        # Only between two messages: in the middle of a body or of a head the same bytes mean
        # something else.
        if between and (found := data.find(END, 0, MAX_KNOWN_BYTES)) > 0:
            end = found + len(END)
            head = self._server.heads.find(data[:end])
            # The whole request and nothing more: with a byte missing or left over the parser
            # would have to take over in the middle of a message.
            if head is not None and len(data) - end == head.length and not order.waiting:
                self._arrived(head, data[end:])
                return
        # A head is kept only if this piece held exactly one (see `_fed`).
        self._heads_read = 0
        # The parser bounds neither headers nor chunk extensions nor trailers. Bytes count here
        # until a callback reports that they belonged to a body or a complete head.
        self._loose_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # An error behind the last request of a connection concerns nobody: its answer closes
            # the connection.
            if not (order.final and self._request_body is None):
                self._refuse(Invalid(f"this cannot be read as HTTP/1.1: {_root_of(error)}"))
        else:
            self._fed(data, end)
        order.answer_next()

    def _feed(self, data: bytes) -> None:
        """Parse; a head with `Upgrade` is parsed again without it.

        Raises:
            HttpParserError: This is not HTTP/1.1.
        """
        # RFC 9110, section 7.8: a server may ignore `Upgrade`. JDK clients send `Upgrade: h2c`
        # with every first request over plain HTTP, so refusing it would lock them out.
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                # The parser ends the message after such a head and leaves its body unread.
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
        """Keep a head that came with its whole body, bound the bytes outside bodies, and set the next deadline."""
        if end and self._heads_read == 1 and self._request_body is None and not self._order.final:
            self._server.heads.keep(data[:end], self._head, len(data) - end)
        if self._loose_bytes > MAX_HEADER_BYTES:
            self._refuse(
                TooLarge(
                    f"the headers (or trailers) have more than {MAX_HEADER_BYTES:,} bytes; "
                    "send less outside the body"
                )
            )
        # The callbacks only mark a new deadline: setting a timer costs more than parsing a small
        # request, and one piece may complete several phases.
        elif self._due == 0.0:
            timeouts = self._server.timeouts
            # The deadline covers the whole head or body, not the gap between two reads: a client
            # that sends a byte now and then would hold a connection forever.
            seconds = timeouts.headers if self._phase == _HEADERS else timeouts.body
            self._wait_until(self._loop.time() + seconds)

    def _arrived(self, head: RequestHead, body: bytes) -> None:
        """Take a complete request whose head is known."""
        self._phase = _ANSWER
        self._due = math.inf
        order = self._order
        if order.take(head, body):
            return
        request_body = RequestBody(resume=self._read_on, invite=None, sender=order.sender_for(head))
        request_body.feed(body)
        request_body.complete()
        self._add(head, request_body)
        order.answer_next()

    def _add(self, head: RequestHead, request_body: RequestBody) -> None:
        if self._order.unanswered:
            # Answers leave in the order of their requests (RFC 9112, section 9.3.2): reading on would
            # only buffer more requests of a client that has to wait anyway.
            self._hold()
        self._order.add(head, request_body)

    # -- the parser's side --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request at its first byte: its headers are due."""
        # The first request's deadline began with the connection: a client that connects and sends
        # nothing is late as well.
        if self._phase != _FIRST:
            self._due = 0.0
        self._phase = _HEADERS
        self._url = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """Append a part of the target, which the parser may deliver in pieces."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; skip trailers, which a recipient may discard (RFC 9112, section 7.1.2)."""
        if self._phase == _HEADERS:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Create the request, which may be processed before its body is complete, and set the body's deadline."""
        self._phase = _BODY
        self._due = 0.0
        self._loose_bytes = 0
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            # `_feed` parses this head again, without the offer; only then it becomes a request.
            return
        raw = parser.get_method()
        method = _METHODS.get(raw)
        if method is None:
            # The parser rejects methods that it does not know, so the table stays at a few dozen.
            method = _METHODS[raw] = raw.decode("ascii")
        url = self._url
        # Nearly every target; `parse_url` costs several times as much.
        if url.startswith(b"/") and b"?" not in url and b"#" not in url:
            path, query = url.decode("ascii"), b""
        else:
            path, query = _split(url)
        if self._order.waiting >= MAX_PIPELINED:
            # Raised through the parser, which stops at once: bytes already read are not turned
            # into more requests.
            raise Overloaded("too many requests wait on one connection; send them over several")
        headers = dict(self._fields)
        version = parser.get_http_version()
        head = self._head = RequestHead(
            method, path, query, self._fields, headers, modern=version == "1.1"
        )
        self._heads_read += 1
        # RFC 9110, section 10.1.1: the client may wait for 100 before it sends the body. It is
        # sent when somebody reads the body, so a request that is refused by its head costs no
        # upload.
        invite = None
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            invite = self._invite
        request_body = self._request_body = RequestBody(
            resume=self._read_on, invite=invite, sender=self._order.sender_for(head)
        )
        self._add(head, request_body)
        if not parser.should_keep_alive() or (
            # HTTP/1.0 with `Connection: keep-alive` expects that header in the answer, which is not
            # written: closing is always correct (RFC 9112, section 9.3).
            b"connection" in headers and version == "1.0"
        ):
            self._order.final = True

    def on_body(self, body: bytes) -> None:
        """Append a part of the body; stop reading where its reader does not keep up."""
        self._loose_bytes = 0
        request_body = self._request_body
        if (
            request_body is not None
            and request_body is not self._order.answered
            and not request_body.feed(body)
        ):
            self._hold()

    def on_message_complete(self) -> None:
        """Complete the request, and stop its deadline: the time of the answer is not the client's."""
        self._loose_bytes = 0
        self._phase = _ANSWER
        self._due = math.inf
        request_body, self._request_body = self._request_body, None
        if request_body is None:
            # The end of a head with `Upgrade`, which created no request.
            return
        request_body.complete()
        # The request was answered before its body was complete; only now may the next one be
        # expected.
        if request_body is self._order.answered:
            self._order.answered = None
            self.rest()

    # -- reading on ---------------------------------------------------------------------------

    def rest(self) -> None:
        """Start the keep-alive deadline, unless the next request has started."""
        if self._phase == _ANSWER and not self._order.unanswered:
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
            # Answers of earlier requests that are still kept must leave first, or the client takes
            # the 100 for the answer to one of them.
            self._server.flush()
            self._transport.write(CONTINUE)

    # -- ending -------------------------------------------------------------------------------

    def _wait_until(self, due: float) -> None:
        """Act at `due`, in the loop's time."""
        # One timer serves many requests: setting and cancelling one for each cost more than
        # parsing them. A timer that fires before `_due` sets itself again in `_look`.
        self._due = due
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        # asyncio runs a timer up to the clock's resolution early.
        if self._due > self._loop.time() + 0.001:
            if self._due < math.inf:
                self._timer = self._loop.call_at(self._due, self._look)
            return
        timeouts = self._server.timeouts
        # RFC 9112, section 9.5: an idle connection may be closed at any time. A 408 that crosses
        # the client's next request would be taken for its answer.
        if self._phase == _NEXT:
            self._transport.close()
        elif self._phase == _BODY:
            self._late("body", timeouts.body)
        else:
            self._late("headers", timeouts.headers)

    def _late(self, what: str, seconds: float) -> None:
        self._refuse(TooSlow(f"the request's {what} did not arrive whole within {seconds:g} s"))

    def finish(self) -> None:
        """Close after the requests in flight are answered; at once where there are none."""
        self._order.final = True
        if not self._order.unanswered:
            self._server.flush()
            self._transport.close()

    def cut(self) -> None:
        """Close now; answer 503 to requests that are not answered."""
        if not self._transport.is_closing():
            self._order.cut()
            self._transport.close()

    def _refuse(self, error: HeadraceError) -> None:
        """Answer with the error and close; after the answers to earlier requests, where there are any, only close."""
        if self._transport.is_closing():
            return
        self._server.flush()
        order = self._order
        broken, self._request_body = self._request_body, None
        order.final = True
        self._due = math.inf
        if broken is not None:
            broken.hang_up()
        before = order.unanswered
        if broken is not None and broken is not order.answered:
            before -= 1
        # The error may not overtake the answers before it, and nothing keeps it until then.
        if before:
            self._hold()
            return
        # One request gets one answer: one that was answered early and then breaks off only
        # closes.
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
    """Return path and query of a request's target."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        # An absolute target without a path means the root (RFC 9112, sections 3.2.1 and 3.2.2).
        path, query = parsed.path or b"/", parsed.query or b""
    return path.decode("ascii"), query


def _root_of(error: BaseException) -> BaseException:
    """Return the exception that a callback raised, which the parser wraps."""
    return error.__context__ or error
