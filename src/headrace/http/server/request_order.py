"""The requests of one connection, each answered in its turn.

In: requests as their heads come, plain calls as they are whole. Out: answers, in the order of the
requests. A plain call is started at once and answered by a callback; every other request is
answered by one task, which is made when it is first needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

from headrace.http.cors import Headers
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.problem_details import answer_error, problem
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.http.response_writer import closes, written
from headrace.http.server.server_state import Called, ServerState
from headrace.http.streaming_response import AnswerState, StreamedAnswer
from headrace.model.errors import Invalid, Unavailable
from headrace.security.access import Peer

_log = logging.getLogger("headrace.http")
STOPPING: Final = answer_error(
    Unavailable("this node stops before your request is answered; send it again in a moment")
)


class RequestReader(Protocol):
    """What reads the requests; a connection."""

    def rest(self) -> None:
        """All that came is answered: wait for the next."""
        ...


class RequestOrder:
    """Whose turn it is on one connection. Owned by the connection; its task by the HTTP server's group.

    Attributes:
        final: Whether nothing is answered behind what is here.
        answered: What was answered before its body was whole; the rest of that is thrown away.
    """

    def __init__(
        self, server: ServerState, transport: asyncio.Transport, peer: Peer, reader: RequestReader
    ) -> None:
        self.final = False
        self.answered: RequestBody | None = None
        self._server = server
        self._transport = transport
        self._peer = peer
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[RequestHead, RequestBody]] = deque()
        self._calling = self._beginning = self._has_task = False
        self._call: Called | None = None
        self._working: RequestBody | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for the one before them."""
        return len(self._queue)

    @property
    def in_hand(self) -> int:
        """How many requests are not answered."""
        return len(self._queue) + self._calling + (self._working is not None)

    def pause(self) -> None:
        """The client reads more slowly than it is answered: its next request waits."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume(self) -> None:
        """It has caught up."""
        writable, self._writable = self._writable, None
        _settle(writable)

    def hang_up(self) -> None:
        """The client is gone."""
        if self._call is not None:
            self._call.hang_up()
        if self._working is not None:
            self._working.hang_up()
        _settle(self._waiter)
        _settle(self._writable)

    def sender_for(self, head: RequestHead) -> RequestOrder | None:
        """Where an answer in parts goes; None where the client could not see its end."""
        return self if head.modern else None

    def take(self, head: RequestHead, body: bytes) -> bool:
        """Start a plain call at once; False where it is not one, or cannot start now."""
        if self._queue or self._calling or self._working is not None or self._writable is not None:
            return False
        return self._begin(head, body)

    def add(self, head: RequestHead, request_body: RequestBody) -> None:
        """Let a request wait for its turn; `go_on` gives it to the first."""
        self._queue.append((head, request_body))

    def go_on(self) -> None:
        """Answer the first request that waits, unless another is being answered."""
        queue = self._queue
        while queue and not (self._calling or self._working is not None or self._beginning):
            waiting = queue.popleft()
            head, request_body = waiting
            if (
                request_body.more
                or self._writable is not None
                or not self._begin(head, request_body.held)
            ):
                queue.appendleft(waiting)
                self._wake()
                return

    def _begin(self, head: RequestHead, body: bytes) -> bool:
        """Begin a plain call; False where the request is none. `reply` may come at once."""
        self._calling = self._beginning = True
        call = self._server.begin(head, body, self._peer, self)
        self._beginning = False
        if call is None:
            self._calling = False
        elif self._calling:
            self._call = call
        return call is not None

    def reply(self, response: Response, extra: Headers) -> None:
        """Answer the call that was started."""
        self._calling = False
        self._call = None
        if self._transport.is_closing():
            return
        if self._write_whole(response, extra, ""):
            self._transport.close()
        elif self._queue:
            self.go_on()
        else:
            self._reader.rest()

    def _write_whole(self, response: Response, extra: Headers, method: str) -> bool:
        """Send an answer as a whole; whether it was the last."""
        last = (self.final or bool(response.headers)) and self._is_last(response)
        server = self._server
        date = server.date.line(self._loop.time())
        try:
            answer = written(response, extra, date=date, method=method, last=last)
        except Invalid as error:
            _log.error("an answer cannot be sent: %s", error)
            bad = problem(502, "The function answered what cannot be sent", str(error), "invalid")
            answer = written(bad, (), date=date, method=method, last=last)
        server.send(self._transport, answer, last=last)
        return last

    def _is_last(self, response: Response) -> bool:
        """Whether the connection closes behind this answer."""
        if response.headers and closes(response):
            self.final = True
            self._queue.clear()
        return self.final and not self._queue

    def _wake(self) -> None:
        """Let the task answer what waits; a connection of plain calls has none."""
        if self._waiter is not None:
            _settle(self._waiter)
            self._waiter = None
        elif not self._has_task:
            self._has_task = True
            self._server.tasks.start(self._work(), name=f"connection of {self._peer.address}")

    async def _work(self) -> None:
        """Answer one request after the other, as long as the connection lives."""
        server, queue, transport = self._server, self._queue, self._transport
        try:
            while True:
                if transport.is_closing():
                    return
                while not queue or self._calling:
                    if transport.is_closing() or (self.final and not self._calling):
                        return
                    self._waiter = self._loop.create_future()
                    await self._waiter
                if self._writable is not None:
                    await self._writable
                    continue
                head, request_body = queue.popleft()
                self._working = request_body
                request = IncomingRequest(
                    head.method,
                    head.path,
                    head.raw_query,
                    head.fields,
                    head.headers,
                    self._peer,
                    request_body,
                    server.admission,
                )
                answered = await server.answer(request)
                self._working = None
                if answered is None or transport.is_closing():
                    return
                response, extra = answered
                if request_body.more:
                    # The rest of its body is not needed; it is read and dropped, within its deadline.
                    request_body.take()
                    self.answered = request_body
                streamed = request_body.streamed
                if streamed is None or streamed.state is AnswerState.OPEN:
                    last = self._write_whole(response, extra, request.method)
                else:
                    last = self._is_last(response)
                    if streamed.state is AnswerState.STARTED:
                        self._break_off(streamed, response)
                        return
                if last:
                    return
                if not queue:
                    self._reader.rest()
        finally:
            transport.close()

    def _break_off(self, streamed: StreamedAnswer, problem: Response) -> None:
        """End an answer that failed when its client had a part of it; leave its end out."""
        streamed.break_off(problem)
        if self._writable is not None:
            # Who does not read now would keep the connection for as long as it likes.
            self._transport.abort()

    def cut(self) -> None:
        """Answer 503 to requests that are not answered; break off an answer that has started."""
        self.final = True
        self._queue.clear()
        streamed = None if self._working is None else self._working.streamed
        if streamed is None or streamed.state is AnswerState.OPEN:
            if self.in_hand:
                self._write_whole(STOPPING, (), "")
        elif streamed.state is AnswerState.STARTED:
            self._break_off(streamed, STOPPING)
        self._server.flush()

    def begin(self, response: Response, extra: Headers) -> None:
        """Send the head of an answer whose chunks follow."""
        date = self._server.date.line(self._loop.time())
        self.send(written(response, extra, date=date, method="", last=self.final, chunked=True))

    def send(self, data: bytes) -> None:
        """Send a part of an answer; nothing where the client is gone."""
        if not self._transport.is_closing():
            self._server.flush()
            self._transport.write(data)

    async def wait_writable(self) -> None:
        """Return when the client has taken enough of what was sent, or is gone."""
        if self._writable is not None:
            await self._writable


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
