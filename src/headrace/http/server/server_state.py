"""State that all connections of an HTTP server share: the application, timeouts, limits and pending writes.

Answers of one turn of the event loop are kept and written together, within a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from headrace.environment.clock import Clock
from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.cors import Headers
from headrace.http.pipeline.head_cache import HeadCache, RequestHead
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.http.response_writer import Date
from headrace.http.server.connection_limits import ConnectionLimits
from headrace.http.server.fast_path import Caller
from headrace.security.access import Peer

HEADERS_S = 10.0
BODY_S = 30.0
KEEP_ALIVE_S = 30.0
MAX_OUTGOING_BYTES = 65_536
"""Bytes of answers that are kept to be written together."""


@dataclass(frozen=True)
class Timeouts:
    """Times in seconds that the HTTP server waits for a client."""

    headers: float = HEADERS_S
    body: float = BODY_S
    keep_alive: float = KEEP_ALIVE_S


DEFAULT_TIMEOUTS = Timeouts()


class Called(Protocol):
    """A plain call in flight."""

    def hang_up(self) -> None:
        """Cancel the call: the client is gone."""
        ...


class Answerer(Protocol):
    """The application that answers requests."""

    def begin(self, head: RequestHead, body: bytes, peer: Peer, caller: Caller) -> Called | None:
        """Start a plain call, to be answered by `caller.reply`; None where `answer` must be called."""
        ...

    async def answer(self, request: IncomingRequest) -> tuple[Response, Headers] | None:
        """Return the answer and the route's extra headers; None where the client is gone."""
        ...


class ClosableConnection(Protocol):
    """A connection that the stopping HTTP server closes."""

    def finish(self) -> None:
        """Close after the requests in flight are answered; at once where there are none."""
        ...

    def cut(self) -> None:
        """Close now; answer 503 to requests that are not answered."""
        ...


class ServerState:
    """State that all connections of an HTTP server share. Owned by the gateway."""

    def __init__(
        self,
        answerer: Answerer,
        *,
        admission: Admission,
        tasks: Tasks,
        clock: Clock,
        timeouts: Timeouts,
        connection_limits: ConnectionLimits,
        identify: Callable[[asyncio.BaseTransport], Peer],
    ) -> None:
        self.begin: Callable[[RequestHead, bytes, Peer, Caller], Called | None] = answerer.begin
        self.answer: Callable[[IncomingRequest], Awaitable[tuple[Response, Headers] | None]]
        self.answer = answerer.answer
        self.admission = admission
        self.tasks = tasks
        self.timeouts = timeouts
        self.connection_limits = connection_limits
        self.identify = identify
        self.connections: set[ClosableConnection] = set()
        self.date = Date(clock.now)
        self.heads = HeadCache()
        self._outgoing: list[tuple[asyncio.Transport, bytes]] = []
        self._outgoing_bytes = 0

    def send(self, transport: asyncio.Transport, answer: bytes, *, last: bool) -> None:
        """Write an answer: at once where it is the last or the only one, else together with others."""
        # Writes in a row find the client, and the machine's other cores, awake; with work in
        # between each write would have to wake them again. With no other request in flight there
        # is nothing to write together with, and a turn of the loop would only add latency.
        if self._outgoing or (self.admission.requests and not last):
            if not self._outgoing:
                asyncio.get_running_loop().call_soon(self.flush)
            self._outgoing.append((transport, answer))
            self._outgoing_bytes += len(answer)
            # `last`: the caller closes the transport next, and a kept answer would be lost.
            if last or self._outgoing_bytes > MAX_OUTGOING_BYTES:
                self.flush()
        else:
            transport.write(answer)

    def flush(self) -> None:
        """Write the kept answers. A connection calls it before it writes or closes by itself, to keep the order."""
        outgoing, self._outgoing = self._outgoing, []
        self._outgoing_bytes = 0
        for transport, answer in outgoing:
            # The client may have left since; asyncio logs a warning for each write to a closed
            # socket.
            if not transport.is_closing():
                transport.write(answer)
