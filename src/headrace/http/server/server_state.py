"""What the connections of an HTTP server share: who answers, how long they wait, and their writes.

Answers of one turn of the loop are kept and written one right after the other, within a bound.
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
"""Answers of one turn of the loop that are kept to be written together."""


@dataclass(frozen=True)
class Timeouts:
    """How long the HTTP server waits for a client, in seconds."""

    headers: float = HEADERS_S
    body: float = BODY_S
    keep_alive: float = KEEP_ALIVE_S


DEFAULT_TIMEOUTS = Timeouts()


class Called(Protocol):
    """A plain call that is not answered yet."""

    def hang_up(self) -> None:
        """The client is gone."""
        ...


class Answerer(Protocol):
    """What answers requests."""

    def begin(self, head: RequestHead, body: bytes, peer: Peer, caller: Caller) -> Called | None:
        """Start a plain call, which `caller.reply` answers; None where `answer` must be called."""
        ...

    async def answer(self, request: IncomingRequest) -> tuple[Response, Headers] | None:
        """The answer, and headers of the route's own; None where the client is gone."""
        ...


class ClosableConnection(Protocol):
    """A connection, as its HTTP server's end knows it."""

    def finish(self) -> None:
        """Close after what is being answered; at once where nothing is."""
        ...

    def cut(self) -> None:
        """Close now; answer 503 to requests that are not answered."""
        ...


class ServerState:
    """What all connections of an HTTP server share. Owned by the gateway."""

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
