"""Requests to a world's node: the HTTP server as it is in production, without a socket, on virtual time.

In: a method, a path, a body. Out: what a client would be answered. Rates, replay windows, tokens and
what is remembered for an `Idempotency-Key` go by the world's clock. A host that dies meanwhile is not
caught here: its client has no answer, as where a connection breaks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.context import ApiContext
from headrace.http.cors import Headers
from headrace.http.dependencies import Dependencies
from headrace.http.metrics import Metrics
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.http.server.application import Application
from headrace.http.streaming_response import AnswerState
from headrace.model.errors import Invalid, Unavailable
from headrace.node.config import Settings
from headrace.security.access import Peer
from headrace.testing.served import ServedResponse, as_operator, opened

CLIENT = Peer("127.0.0.1", neighbour=True)
_LIMITS = Settings()


class HttpClient:
    """A node's server without a socket. A new host has a new server, without connections."""

    def __init__(self) -> None:
        self._known: Dependencies | None = None
        self._admission: Admission
        self._application: Application

    async def answer(
        self, services: Dependencies, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> ServedResponse:
        """Return the answer that a client on the node's own machine gets.

        Args:
            services: What the server of the host that is up may call.
            method: Such as `POST`.
            path: With its query.
            body: Bytes as they are, None for no body, anything else as JSON.
            headers: With `_` for `-`.

        Raises:
            Invalid: The path is none.
            Unavailable: A `live` answer broke off in the middle.
        """
        if not path.startswith("/"):
            raise Invalid(
                f'`{path:.80}` is not a path of the node; write one such as `"/orders/7"`'
            )
        self._enter(services)
        parts = urlsplit(path)
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        fields = [(b"host", b"localhost"), (b"content-length", b"%d" % len(data))]
        fields += [
            (name.replace("_", "-").lower().encode(), text.encode())
            for name, text in as_operator(services.operator.key, headers).items()
        ]
        listening = _Listening()
        request_body = RequestBody(resume=_nothing, invite=None, sender=listening)
        request_body.feed(data)
        request_body.complete()
        answered = await self._application.answer(
            IncomingRequest(
                method,
                parts.path,
                parts.query.encode(),
                fields,
                dict(fields),
                CLIENT,
                request_body,
                self._admission,
            )
        )
        assert answered is not None  # noqa: S101 - only who hangs up is not answered
        response, extra = answered
        if request_body.streamed is not None and request_body.streamed.state is AnswerState.STARTED:
            raise Unavailable(f"the answer broke off: {response.body.decode()}")
        if request_body.streamed is not None and request_body.streamed.state is AnswerState.ENDED:
            response = listening.whole()
        found = {
            name.decode(): text.decode("latin-1") for name, text in (*response.headers, *extra)
        }
        found.setdefault("content-type", response.media.decode())
        return opened(response.status, found, response.body)

    def _enter(self, services: Dependencies) -> None:
        if services is self._known:
            return
        self._known = services
        self._admission = Admission(
            allowed_hosts=(),
            max_body_bytes=_LIMITS.max_body_bytes,
            max_requests=_LIMITS.max_requests,
        )
        self._application = Application(
            ApiContext(
                services=services, admission=self._admission, metrics=Metrics(), tasks=Tasks(_broke)
            )
        )


class _Listening:
    """A client that listens to the end."""

    def __init__(self) -> None:
        self._head: Response
        self._heard = b""

    def begin(self, response: Response, extra: Headers) -> None:
        """Note the head."""
        self._head = response

    def send(self, data: bytes) -> None:
        """Note what is said."""
        self._heard += data

    async def wait_writable(self) -> None:
        """Return at once: the buffer has no limit."""

    def whole(self) -> Response:
        """The answer without the marks of its chunks."""
        body, rest = b"", self._heard
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body, rest = body + rest[:length], rest[length + 2 :]
        return replace(self._head, body=body)


def _nothing() -> None:
    return


def _broke(name: str, error: BaseException) -> None:
    raise AssertionError(f"task `{name}` of the server failed") from error
