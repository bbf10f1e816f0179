"""The requests of one connection, answered in their order.

In: requests as their heads arrive, plain calls as they are complete. Out: answers, in the order of the
requests. A plain call starts at once and is answered by a callback; one task, started when it is first
needed, answers all other requests of the connection.
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
    """The reader of requests: a connection."""

    def rest(self) -> None:
        """Wait for the next request: all earlier ones are answered."""
        ...


class RequestOrder:
    """The queue of one connection's requests. Owned by the connection; its task by the HTTP server's group.

    Attributes:
        final: Whether the connection closes after the requests that are queued.
        answered: The body of a request that was answered before it was complete; its rest is discarded.
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
        # `_calling`: a plain call is not answered yet. `_beginning`: it is being started, so
        # `reply` may come before `_begin` returns.
        self._calling = self._beginning = self._has_task = False
        self._call: Called | None = None
        self._working: RequestBody | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the one before them."""
        return len(self._queue)

    @property
    def unanswered(self) -> int:
        """The number of requests that are not answered."""
        return len(self._queue) + self._calling + (self._working is not None)

    def pause(self) -> None:
        """Hold back the next request: the client reads more slowly than it is answered."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume(self) -> None:
        """Continue: the client has read enough."""
        writable, self._writable = self._writable, None
        _settle(writable)

    def hang_up(self) -> None:
        """Cancel the call in flight and wake the task: the client is gone."""
        if self._call is not None:
            self._call.hang_up()
        if self._working is not None:
            self._working.hang_up()
        _settle(self._waiter)
        _settle(self._writable)

    def sender_for(self, head: RequestHead) -> RequestOrder | None:
        """Return the sender for an answer in parts; None where the client could not see its end."""
        # HTTP/1.0 has no chunks (RFC 9112, section 6.1): its client could not inform a complete
        # answer from one that broke off.
        return self if head.modern else None

    def take(self, head: RequestHead, body: bytes) -> bool:
        """Start a plain call at once; False where it is not one, or must wait."""
        if self._queue or self._calling or self._working is not None or self._writable is not None:
            return False
        return self._begin(head, body)

    def add(self, head: RequestHead, request_body: RequestBody) -> None:
        """Queue a request; `answer_next` starts the first."""
        self._queue.append((head, request_body))

    def answer_next(self) -> None:
        """Answer the first request of the queue, unless another is being answered."""
        queue = self._queue
        # `_beginning` keeps a call that is answered while it starts from re-entering here: a
        # thousand pipelined calls would use a thousand stack frames.
        while queue and not (self._calling or self._working is not None or self._beginning):
            # Before it starts, so that `unanswered` does not count it twice: in the queue and in
            # flight.
            waiting = queue.popleft()
            head, request_body = waiting
            if (
                request_body.more
                or self._writable is not None
                or not self._begin(head, request_body.held)
            ):
                # The task takes it: its body is incomplete, its client does not read, or its
                # route has a step that waits.
                queue.appendleft(waiting)
                self._wake()
                return

    def _begin(self, head: RequestHead, body: bytes) -> bool:
        """Start a plain call; False where the request is not one. `reply` may be called before this returns."""
        self._calling = self._beginning = True
        call = self._server.begin(head, body, self._peer, self)
        self._beginning = False
        if call is None:
            self._calling = False
        elif self._calling:
            self._call = call
        return call is not None

    def reply(self, response: Response, extra: Headers) -> None:
        """Send the answer to the plain call in flight, then start the next request."""
        self._calling = False
        self._call = None
        if self._transport.is_closing():
            return
        if self._write_whole(response, extra, ""):
            self._transport.close()
        elif self._queue:
            self.answer_next()
        else:
            self._reader.rest()

    def _write_whole(self, response: Response, extra: Headers, method: str) -> bool:
        """Send a whole answer; return whether it was the connection's last."""
        last = (self.final or bool(response.headers)) and self._is_last(response)
        server = self._server
        date = server.date.line(self._loop.time())
        try:
            answer = written(response, extra, date=date, method=method, last=last)
        except Invalid as error:
            # The function set a header that cannot be sent. This request still needs an answer,
            # or every later one would be taken for it.
            _log.error("an answer cannot be sent: %s", error)
            bad = problem(502, "The function answered what cannot be sent", str(error), "invalid")
            answer = written(bad, (), date=date, method=method, last=last)
        server.send(self._transport, answer, last=last)
        return last

    def _is_last(self, response: Response) -> bool:
        """Return whether the connection closes after this answer."""
        if response.headers and closes(response):
            # RFC 9112, section 9.6: no request after an answer with `Connection: close` is
            # processed.
            self.final = True
            self._queue.clear()
        return self.final and not self._queue

    def _wake(self) -> None:
        """Wake the task that answers the queue, or start it; a connection with only plain calls has none."""
        if self._waiter is not None:
            _settle(self._waiter)
            self._waiter = None
        elif not self._has_task:
            self._has_task = True
            self._server.tasks.start(self._work(), name=f"connection of {self._peer.address}")

    async def _work(self) -> None:
        """Answer one request after the other until the connection closes."""
        server, queue, transport = self._server, self._queue, self._transport
        try:
            while True:
                if transport.is_closing():
                    return
                while not queue or self._calling:
                    # A plain call in flight is answered by its callback, which also closes the
                    # connection.
                    if transport.is_closing() or (self.final and not self._calling):
                        return
                    self._waiter = self._loop.create_future()
                    await self._waiter
                # No answer is produced for a client that does not read: the transport would
                # buffer all of them. Afterwards the queue is looked at again, since a plain call
                # may have started meanwhile.
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
                    # The rest of the body must be read, or it would be taken for the next request
                    # (RFC 9112, section 9.3). It is dropped, and has to arrive within its deadline.
                    request_body.take()
                    self.answered = request_body
                streamed = request_body.streamed
                if streamed is None or streamed.state is AnswerState.OPEN:
                    last = self._write_whole(response, extra, request.method)
                else:
                    # The answer was sent in parts; `response` only reports how it ended.
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
        """Stop an answer that failed after its client had received a part; send no last chunk."""
        streamed.break_off(problem)
        if self._writable is not None:
            # `close` waits until the buffer is sent, and a client that does not read decides how long.
            self._transport.abort()

    def cut(self) -> None:
        """Answer 503 to the request in flight; break off an answer that has started."""
        self.final = True
        self._queue.clear()
        streamed = None if self._working is None else self._working.streamed
        if streamed is None or streamed.state is AnswerState.OPEN:
            if self.unanswered:
                self._write_whole(STOPPING, (), "")
        elif streamed.state is AnswerState.STARTED:
            self._break_off(streamed, STOPPING)
        self._server.flush()

    def begin(self, response: Response, extra: Headers) -> None:
        """Send the head of an answer whose chunks follow."""
        date = self._server.date.line(self._loop.time())
        self.send(written(response, extra, date=date, method="", last=self.final, chunked=True))

    def send(self, data: bytes) -> None:
        """Send a part of an answer; do nothing where the client is gone."""
        if not self._transport.is_closing():
            # Kept answers of this connection must leave before the part.
            self._server.flush()
            self._transport.write(data)

    async def wait_writable(self) -> None:
        """Return when the client has taken enough of what was sent, or is gone."""
        if self._writable is not None:
            await self._writable


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
