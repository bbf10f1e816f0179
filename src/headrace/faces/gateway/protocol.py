"""HTTP/1.1 on one connection: requests in, answers out, in their order and within bounds.

httptools parses; one task a connection answers its requests one after the other, so that a request
costs no task of its own. A connection has 10 s to bring its headers whole and 30 s more for the
body, however slowly the bytes drip; headers, chunk extensions and trailers are bounded in bytes,
requests that wait for their turn and connections in number. What comes after a request that cannot
be read is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from headrace.faces.gateway.admission import Admission
from headrace.faces.gateway.cors import Headers
from headrace.faces.gateway.errors import TooSlow, answer_error, problem
from headrace.faces.gateway.exchange import Exchange
from headrace.faces.gateway.outlet import Outlet, State
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.responses import Response
from headrace.faces.gateway.writing import CONTINUE, Date, closes, written
from headrace.model.errors import HeadraceError, Invalid, Overloaded, TooLarge
from headrace.world.clock import Clock
from headrace.world.tasks import Tasks

_log = logging.getLogger("headrace.gateway")

HEADERS_S = 10.0
BODY_S = 30.0
KEEP_ALIVE_S = 30.0
MAX_HEADER_BYTES = 65_536
MAX_OUTGOING_BYTES = 65_536
"""Answers of one turn of the loop that are kept to be written together."""
MAX_PIPELINED = 1_024
"""Requests of one connection that wait for the one before them; their client sends no faster."""

# What a connection waits for.
_FIRST: Final = 0
_NEXT: Final = 1
_HEADERS: Final = 2
_BODY: Final = 3
_ANSWER: Final = 4
_METHODS: dict[bytes, str] = {}


@dataclass(frozen=True)
class Patience:
    """How long the door waits for a client, in seconds."""

    headers: float = HEADERS_S
    body: float = BODY_S
    keep_alive: float = KEEP_ALIVE_S


DEFAULT_PATIENCE = Patience()


class Answerer(Protocol):
    """What answers requests."""

    async def answer(self, request: Request) -> tuple[Response, Headers] | None:
        """The answer, and headers of the route's own; None where nobody is left to hear it."""
        ...


class Hall:
    """What all connections of a door share. Owned by the gateway."""

    def __init__(
        self,
        answerer: Answerer,
        *,
        admission: Admission,
        tasks: Tasks,
        clock: Clock,
        patience: Patience,
        max_connections: int,
    ) -> None:
        self.answer: Callable[[Request], Awaitable[tuple[Response, Headers] | None]]
        self.answer = answerer.answer
        self.admission, self.tasks = admission, tasks
        self.patience, self.max_connections = patience, max_connections
        self.connections: set[Connection] = set()
        self.date = Date(clock.now)
        self._outgoing: list[tuple[asyncio.Transport, bytes]] = []
        self._outgoing_bytes = 0

    def send(self, transport: asyncio.Transport, answer: bytes, *, last: bool) -> None:
        """Write an answer: at once where it is the last or the only one, else with its neighbours.

        One write right after the other finds the client (and the machine's other cores) awake;
        with work in between, every single write would have to wake them up again.
        """
        if self._outgoing or (self.admission.requests and not last):
            if not self._outgoing:
                asyncio.get_running_loop().call_soon(self.flush)
            self._outgoing.append((transport, answer))
            self._outgoing_bytes += len(answer)
            if last or self._outgoing_bytes > MAX_OUTGOING_BYTES:
                self.flush()
        else:
            transport.write(answer)

    def flush(self) -> None:
        """Write what is kept; whatever a connection says or does by itself comes after that."""
        outgoing, self._outgoing = self._outgoing, []
        self._outgoing_bytes = 0
        for transport, answer in outgoing:
            if not transport.is_closing():
                transport.write(answer)


class Connection(asyncio.Protocol):
    """One client's connection. Owned by the loop's transport; its task by the door's group."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _FIRST
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loose_bytes = 0
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._exchange: Exchange | None = None
        self._queue: deque[tuple[Request, Exchange]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._working: Exchange | None = None
        self._answered: Exchange | None = None
        self._final = self._paused = False
        self._room: asyncio.Future[None] | None = None

    # -- the transport's side -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for headers, or close at once where there are too many."""
        hall = self._hall
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        hall.connections.add(self)
        if len(hall.connections) > hall.max_connections:
            self._refuse(Overloaded("this node holds as many connections as it may; try again"))
            return
        self._wait_until(self._loop.time() + hall.patience.headers)
        hall.tasks.start(self._work(), name=f"connection of {self._client}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell whoever reads or writes."""
        self._hall.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in {self._exchange, self._working}:
            if exchange is not None:
                exchange.hang_up()
        for future in (self._waiter, self._room):
            _settle(future)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered: its next request waits."""
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        room, self._room = self._room, None
        _settle(room)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound what does not become a body."""
        if self._final and self._exchange is None:
            return
        self._loose_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked; what follows is in a language we do not speak.
            self._final = True
            return
        except httptools.HttpParserError as error:
            if not (self._final and self._exchange is None):
                self._refuse(Invalid(f"this cannot be read as HTTP/1.1: {_root_of(error)}"))
            return
        if self._loose_bytes > MAX_HEADER_BYTES:
            self._refuse(
                TooLarge(
                    f"the headers (or trailers) have more than {MAX_HEADER_BYTES:,} bytes; "
                    "send less beside the body"
                )
            )
        elif self._due == 0.0:
            patience = self._hall.patience
            seconds = patience.headers if self._phase == _HEADERS else patience.body
            self._wait_until(self._loop.time() + seconds)

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
        """Take a header; trailers, which nobody asked for, are passed over."""
        if self._phase == _HEADERS:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The headers are there: the request can be worked on, and the body is due."""
        self._phase = _BODY
        self._due = 0.0
        self._loose_bytes = 0
        parser = self._parser
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
        if len(self._queue) >= MAX_PIPELINED:
            raise Overloaded("too many requests wait on one connection; send them over several")
        headers = dict(self._fields)
        invite = None
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            invite = self._invite
        exchange = self._exchange = Exchange(go_on=self._read_on, invite=invite, speaker=self)
        request = Request(
            method, path, query, self._fields, headers, self._client, exchange, self._hall.admission
        )
        self._queue.append((request, exchange))
        if not parser.should_keep_alive() or (
            # Without that header only HTTP/1.1 keeps a connection.
            b"connection" in headers and parser.get_http_version() == "1.0"
        ):
            self._final = True
        if self._waiter is not None:
            _settle(self._waiter)
            self._waiter = None
        else:
            # Answers go out one after the other: nothing more is read until this one's turn.
            self._hold()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._loose_bytes = 0
        exchange = self._exchange
        if exchange is not None and exchange is not self._answered and not exchange.feed(body):
            self._hold()

    def on_message_complete(self) -> None:
        """The request is whole: how long the answer takes is not the client's fault."""
        self._loose_bytes = 0
        self._phase = _ANSWER
        self._due = math.inf
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.complete()
        if exchange is self._answered:
            self._answered = None
            self._rest()

    # -- answering ----------------------------------------------------------------------------

    async def _work(self) -> None:
        """Answer one request after the other, as long as the connection lives."""
        hall, queue, transport = self._hall, self._queue, self._transport
        try:
            while True:
                if transport.is_closing():
                    return
                while not queue:
                    if self._final or transport.is_closing():
                        return
                    self._waiter = self._loop.create_future()
                    await self._waiter
                if self._room is not None:
                    await self._room
                    continue
                request, exchange = queue.popleft()
                self._working = exchange
                answered = await hall.answer(request)
                self._working = None
                if answered is None or transport.is_closing():
                    return
                response, extra = answered
                if response.headers and closes(response):
                    self._final = True
                    queue.clear()
                if exchange.more:
                    # Nobody wants the rest of its body; it is thrown away, within its deadline.
                    exchange.take()
                    self._answered = exchange
                last = self._final and not queue
                outlet = exchange.outlet
                if outlet is None or outlet.state is State.OPEN:
                    answer = self._bytes_of(response, extra, request.method, last=last)
                    hall.send(transport, answer, last=last)
                elif outlet.state is State.BEGUN:
                    self._break_off(outlet, response)
                    return
                if last:
                    return
                if not queue:
                    self._rest()
        finally:
            transport.close()

    def _break_off(self, outlet: Outlet, problem: Response) -> None:
        """End an answer that failed when its client had a part of it; leave its end out."""
        outlet.break_off(problem)
        if self._room is not None:
            # Who does not read now would keep the connection for as long as it likes.
            self._transport.abort()

    def can_chunk(self) -> bool:
        """Whether the client can tell an answer's end from a connection that broke."""
        return self._parser.get_http_version() == "1.1"

    def begin(self, response: Response, extra: Headers) -> None:
        """Send the head of an answer whose chunks follow."""
        date = self._hall.date.line(self._loop.time())
        self.send(written(response, extra, date=date, method="", last=self._final, chunked=True))

    def send(self, data: bytes) -> None:
        """Send a part of an answer; where the client is gone, to nobody."""
        if not self._transport.is_closing():
            self._hall.flush()
            self._transport.write(data)

    async def wait_room(self) -> None:
        """Return when the client has taken enough of what was sent, or is gone."""
        if self._room is not None:
            await self._room

    def _bytes_of(self, response: Response, extra: Headers, method: str, *, last: bool) -> bytes:
        date = self._hall.date.line(self._loop.time())
        try:
            return written(response, extra, date=date, method=method, last=last)
        except Invalid as error:
            _log.error("an answer cannot be sent: %s", error)
            bad = problem(502, "The function answered what cannot be sent", str(error), "invalid")
            return written(bad, (), date=date, method=method, last=last)

    def _rest(self) -> None:
        """Wait for the next request, unless it is on its way already."""
        if self._phase == _ANSWER and self._working is None and not self._queue:
            self._phase = _NEXT
            self._wait_until(self._loop.time() + self._hall.patience.keep_alive)
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
            self._hall.flush()
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
        patience = self._hall.patience
        if self._phase == _NEXT:
            self._transport.close()
        elif self._phase == _BODY:
            self._late("body", patience.body)
        else:
            self._late("headers", patience.headers)

    def _late(self, what: str, seconds: float) -> None:
        self._refuse(TooSlow(f"the request's {what} did not arrive whole within {seconds:g} s"))

    def finish(self) -> None:
        """Close after what is being answered; at once where nothing is."""
        self._final = True
        if self._working is None and not self._queue:
            self._hall.flush()
            self._transport.close()

    def cut(self) -> None:
        """Close now, whatever is left unsaid."""
        self._transport.abort()

    def _refuse(self, error: HeadraceError) -> None:
        """Say why and close; after the answers to requests that came before, where there are any."""
        if self._transport.is_closing():
            return
        self._hall.flush()
        broken, self._exchange = self._exchange, None
        self._final = True
        self._due = math.inf
        if broken is not None:
            broken.hang_up()
        before = len(self._queue) + (self._working is not None)
        if broken is not None and broken is not self._answered:
            before -= 1
        if before:
            self._hold()
            return
        if broken is None or broken is not self._answered:
            self._transport.write(written(
                answer_error(error), ((b"connection", b"close"),), method="GET", last=True,
                date=self._hall.date.line(self._loop.time()),
            ))  # fmt: skip
        self._transport.close()


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _split(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        path, query = parsed.path, parsed.query or b""
        if path is None:
            raise Invalid("the target has no path")
    return path.decode("ascii"), query


def _root_of(error: BaseException) -> BaseException:
    """What a callback raised, which the parser wraps."""
    return error.__context__ or error
