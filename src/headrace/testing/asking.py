"""Requests to a world's node: the door as it is in production, without a socket, on virtual time.

In: a method, a path, a body. Out: what a client would be answered. Rates, replay windows, tokens and
what is remembered for an `Idempotency-Key` go by the world's clock. A host that dies meanwhile leaves
its client without an answer, as a connection that breaks does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from headrace.faces.gateway.admission import Admission
from headrace.faces.gateway.application import Application
from headrace.faces.gateway.door import Door
from headrace.faces.gateway.exchange import Exchange
from headrace.faces.gateway.metrics import Metrics
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.rooms import Rooms
from headrace.model.errors import Invalid, Unavailable
from headrace.node.config import Settings
from headrace.testing.faults import HostDied
from headrace.testing.served import Answer, opened
from headrace.world.tasks import Tasks

CLIENT = "127.0.0.1"
_LIMITS = Settings()


class Asking:
    """Made by a `World`. A host that is born anew has a door of its own, with nothing remembered.

    Args:
        rooms: What the door of the host that is up may call; waits until one is.
        drive: Lets the world go on until something is done.
    """

    def __init__(
        self,
        rooms: Callable[[], Coroutine[Any, Any, Rooms]],
        drive: Callable[[Coroutine[Any, Any, Answer]], Answer],
    ) -> None:
        self._rooms, self._drive = rooms, drive
        self._admission: Admission
        self._application: Application
        self._known: Rooms | None = None

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        """Send a request, and let the world go on until it is answered.

        Raises:
            Invalid: The path is none.
            Unavailable: The host died before it answered.
        """
        parts = urlsplit(path)
        if not path.startswith("/"):
            raise Invalid(f'`{path:.80}` is no path of the node; write one such as `"/orders/7"`')
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        fields = [(b"host", b"localhost"), (b"content-length", b"%d" % len(data))]
        fields += [
            (name.replace("_", "-").lower().encode(), text.encode())
            for name, text in headers.items()
        ]
        return self._drive(self._ask(method, parts.path, parts.query.encode(), fields, data))

    async def _ask(
        self, method: str, path: str, query: bytes, fields: list[tuple[bytes, bytes]], data: bytes
    ) -> Answer:
        self._enter(await self._rooms())
        exchange = Exchange(go_on=_nothing, invite=None)
        exchange.feed(data)
        exchange.complete()
        request = Request(
            method, path, query, fields, dict(fields), CLIENT, exchange, self._admission
        )
        try:
            answered = await self._application.answer(request)
        except HostDied as died:
            raise Unavailable(
                f"{died} before it answered; whether anything was kept is unknown, so ask again "
                "with the same `idempotency_key`"
            ) from died
        assert answered is not None  # noqa: S101 - only who hangs up is not answered
        response, extra = answered
        names = {
            name.decode(): text.decode("latin-1") for name, text in (*response.headers, *extra)
        }
        names.setdefault("content-type", response.media.decode())
        return opened(response.status, names, response.body)

    def _enter(self, rooms: Rooms) -> None:
        if rooms is self._known:
            return
        self._known = rooms
        self._admission = Admission(
            allowed_hosts=(),
            max_body_bytes=_LIMITS.max_body_bytes,
            max_requests=_LIMITS.max_requests,
        )
        self._application = Application(
            Door(
                rooms=rooms, admission=self._admission, metrics=Metrics(), tasks=Tasks(_broke)
            )
        )  # fmt: skip


def _nothing() -> None:
    return


def _broke(name: str, error: BaseException) -> None:
    raise AssertionError(f"task `{name}` of the door failed") from error
