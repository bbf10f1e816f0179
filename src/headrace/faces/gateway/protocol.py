"""uvicorn's HTTP protocol with the patience it lacks: deadlines and bounds for slow or endless input.

A connection has 10 s to bring its headers whole and 30 s more for the body, however slowly the bytes
drip; headers, chunk extensions and trailers are bounded in bytes; connections are bounded in number.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from headrace.faces.gateway.errors import TooSlow, answer_error
from headrace.faces.gateway.responses import Response
from headrace.model.errors import HeadraceError, Overloaded, TooLarge

HEADERS_S = 10.0
BODY_S = 30.0
MAX_HEADER_BYTES = 65_536


@dataclass(frozen=True)
class Patience:
    """How long the door waits for a client, in seconds."""

    headers: float = HEADERS_S
    body: float = BODY_S


DEFAULT_PATIENCE = Patience()


def patient_protocol(patience: Patience, max_connections: int) -> type[HttpToolsProtocol]:
    """The protocol class for a door with this patience."""

    class PatientProtocol(HttpToolsProtocol):
        """One connection. Owned by the loop's transport."""

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._deadline: asyncio.TimerHandle | None = None
            self._idle_bytes = 0
            self._in_headers = True

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Begin to wait for headers, or close at once where there are too many."""
            super().connection_made(transport)  # type: ignore[arg-type]  # what loops really give
            if len(self.connections) > max_connections:
                self._refuse(Overloaded("this node holds as many connections as it may; try again"))
                return
            self._wait(patience.headers)

        def connection_lost(self, exc: Exception | None) -> None:
            """Stop waiting."""
            self._wait(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Feed the parser, and bound what does not become a body."""
            self._idle_bytes += len(data)
            super().data_received(data)
            if self._idle_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self._refuse(
                    TooLarge(
                        f"the headers (or trailers) have more than {MAX_HEADER_BYTES:,} bytes; "
                        "send less beside the body"
                    )
                )

        def on_message_begin(self) -> None:
            """A request's first byte: its headers are due."""
            super().on_message_begin()
            self._in_headers = True
            if self._deadline is None:
                self._wait(patience.headers)

        def on_header(self, name: bytes, value: bytes) -> None:
            """Take a header; trailers, which nobody asked for, are passed over."""
            if self._in_headers:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """The headers are there: the body is due."""
            self._in_headers = False
            self._idle_bytes = 0
            self._wait(patience.body)
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Take a part of the body."""
            self._idle_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """The request is whole: how long the answer takes is not the client's fault."""
            self._idle_bytes = 0
            self._wait(None)
            super().on_message_complete()

        def _wait(self, seconds: float | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = (
                None if seconds is None else self.loop.call_later(seconds, self._overdue)
            )

        def _overdue(self) -> None:
            self._deadline = None
            late = "headers" if self._in_headers else "body"
            seconds = patience.headers if self._in_headers else patience.body
            self._refuse(TooSlow(f"the request's {late} did not arrive whole within {seconds:g} s"))

        def _answering(self) -> bool:
            cycle: RequestResponseCycle | None = self.cycle
            return cycle is not None and cycle.response_started and not cycle.response_complete

        def _refuse(self, error: HeadraceError) -> None:
            if self.transport.is_closing():
                return
            if not self._answering():
                self.transport.write(plain_http(answer_error(error)))
            self.transport.close()

    return PatientProtocol


def plain_http(response: Response) -> bytes:
    """An answer as the bytes of HTTP/1.1, after which the connection closes."""
    reason = HTTPStatus(response.status).phrase
    lines = [
        f"HTTP/1.1 {response.status} {reason}".encode(),
        b"content-type: " + response.media,
        b"content-length: %d" % len(response.body),
        *(b"%b: %b" % header for header in response.headers if header[0] != b"connection"),
        b"connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + response.body
