"""An answer that is sent while its function runs: values -> chunks on the connection.

    OPEN -> STARTED -> ENDED     the function ended and its effects are committed
            STARTED -> BROKEN    it failed: the answer stops in the middle

The last chunk is sent only after the commit, so a client that has read the answer to its end knows that the
effects are stored. A failure before the first part is an ordinary answer.
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
    """Return a JSON value as a server-sent event or as a line."""
    if b"\n" in value or b"\r" in value:
        # A handler may return formatted JSON as bytes, and a line break would end the event or the
        # line. In JSON it can only be between tokens, where a space means the same (RFC 8259,
        # section 2).
        value = value.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: %b\n\n" % value if media == EVENTS else value + b"\n"


class AnswerSender(Protocol):
    """The connection to the client, as an answer in parts uses it."""

    def begin(self, response: Response, extra: Headers) -> None:
        """Send the head of an answer whose chunks follow.

        Raises:
            Invalid: It has a header that cannot be sent.
        """
        ...

    def send(self, data: bytes) -> None:
        """Send bytes; do nothing where the client is gone."""
        ...

    async def wait_writable(self) -> None:
        """Return when the client has read enough of what was sent, or is gone."""
        ...


class AnswerState(Enum):
    """The progress of an answer."""

    OPEN = "open"
    STARTED = "started"
    ENDED = "ended"
    BROKEN = "broken"


class StreamedAnswer:
    """One answer in parts; a `delivery.calls.streaming.Listener`. Owned by the request's task.

    Args:
        sender: The client's connection.
        accept: The client's `Accept`; without server-sent events in it the answer has lines.
        extra: Headers to add to the answer.
    """

    def __init__(self, sender: AnswerSender, accept: str, extra: Headers) -> None:
        self.state = AnswerState.OPEN
        self._sender = sender
        self._extra = extra
        self._media = EVENTS if EVENTS.decode() in accept else LINES
        self._raw = False

    async def take(self, body: bytes, head: WireReply | None) -> None:
        """Send a part; return when the next may be sent."""
        if self.state is AnswerState.OPEN:
            self._begin(head)
        if body:
            part = body if self._raw else framed(body, self._media)
            self._sender.send(chunk(part))
            # Backpressure as far as the handler: the instance yields its next value only after
            # this returns.
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
        # nginx buffers answers of an upstream unless this header forbids it.
        headers.append((b"x-accel-buffering", b"no"))
        self._sender.begin(Response(status, b"", media, tuple(headers)), self._extra)
        self.state = AnswerState.STARTED

    def end(self) -> None:
        """Send the end: all parts are sent, and the effects are committed."""
        if self.state is AnswerState.OPEN:
            self._begin(None)
        self.state = AnswerState.ENDED
        last = LAST_CHUNK
        if self._is_event_stream:
            last = chunk(COMMITTED) + last
        self._sender.send(last)

    def break_off(self, problem: Response) -> None:
        """Report a failure in the middle where the media type allows it; send no last chunk."""
        # A missing last chunk marks the message as incomplete (RFC 9112, section 8).
        self.state = AnswerState.BROKEN
        if self._is_event_stream:
            self._sender.send(chunk(b"event: failed\ndata: %b\n\n" % problem.body))

    @property
    def _is_event_stream(self) -> bool:
        # `EventSource` does not report how an answer ends and reconnects, so an event reports it.
        return self._media == EVENTS and not self._raw
