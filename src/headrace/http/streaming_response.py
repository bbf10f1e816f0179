"""An answer that is sent while its function still runs: values -> chunks on the connection.

    OPEN -> STARTED -> ENDED     the function ended and its effects are committed
            STARTED -> BROKEN    it failed: the answer stops in the middle

Its end is the promise: the last chunk is sent only after the commit, so a client that has read the
answer to its end knows that it holds. What fails before the first part is an ordinary answer.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from headrace.http.cors import Headers
from headrace.http.response import Response
from headrace.http.response_writer import LAST_CHUNK, chunk
from headrace.model.reply import WireReply, is_raw

EVENTS: Final = b"text/event-stream"
LINES: Final = b"application/x-ndjson"
COMMITTED: Final = b"event: committed\ndata: {}\n\n"


def framed(value: bytes, media: bytes) -> bytes:
    """A value, which is JSON, as an event or as a line."""
    if b"\n" in value or b"\r" in value:
        # Bytes that a handler gave as JSON may be of several lines; between tokens a space is as good.
        value = value.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: %b\n\n" % value if media == EVENTS else value + b"\n"


class AnswerSender(Protocol):
    """A client's connection, as far as an answer in parts needs it."""

    def begin(self, response: Response, extra: Headers) -> None:
        """Send the head of an answer whose chunks follow.

        Raises:
            Invalid: It has a header that cannot be sent.
        """
        ...

    def send(self, data: bytes) -> None:
        """Send; nothing where the client is gone."""
        ...

    async def wait_writable(self) -> None:
        """Return when the client has taken enough of what was sent, or is gone."""
        ...


class AnswerState(Enum):
    """How far an answer is."""

    OPEN = "open"
    STARTED = "started"
    ENDED = "ended"
    BROKEN = "broken"


class StreamedAnswer:
    """One answer in parts; a `delivery.calls.streaming.Listener`. Owned by the request's task.

    Args:
        sender: Where it is sent.
        accept: What the client asks for: server-sent events, else lines.
        extra: Headers of the route's own.
    """

    def __init__(self, sender: AnswerSender, accept: str, extra: Headers) -> None:
        self.state = AnswerState.OPEN
        self._sender = sender
        self._extra = extra
        self._media = EVENTS if EVENTS.decode() in accept else LINES
        self._raw = False

    async def take(self, body: bytes, head: WireReply | None) -> None:
        """Send a part on; returns when the next may be sent."""
        if self.state is AnswerState.OPEN:
            self._begin(head)
        if body:
            part = body if self._raw else framed(body, self._media)
            self._sender.send(chunk(part))
            await self._sender.wait_writable()

    def _begin(self, head: WireReply | None) -> None:
        self._raw = is_raw(head)
        status, headers, media = 200, [], self._media
        if head is not None:
            status = head.status
            headers = [
                (name.encode(), text.encode("latin-1")) for name, text in head.headers.items()
            ]
            if self._raw:
                media = head.media.encode()
        # A proxy must not buffer what should arrive at once.
        headers.append((b"x-accel-buffering", b"no"))
        self._sender.begin(Response(status, b"", media, tuple(headers)), self._extra)
        self.state = AnswerState.STARTED

    def end(self) -> None:
        """All is sent, and committed."""
        if self.state is AnswerState.OPEN:
            self._begin(None)
        self.state = AnswerState.ENDED
        last = LAST_CHUNK
        if self._is_event_stream:
            last = chunk(COMMITTED) + last
        self._sender.send(last)

    def break_off(self, problem: Response) -> None:
        """It failed in the middle: say so where the form allows it, and leave the end out."""
        self.state = AnswerState.BROKEN
        if self._is_event_stream:
            self._sender.send(chunk(b"event: failed\ndata: %b\n\n" % problem.body))

    @property
    def _is_event_stream(self) -> bool:
        # A browser's EventSource does not see how an answer ends: an event says so.
        return self._media == EVENTS and not self._raw
