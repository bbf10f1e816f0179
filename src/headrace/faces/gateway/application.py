"""The ASGI application: admit, find the handler, run it, answer. No framework.

Whatever a handler raises becomes an answer here, by the table in `errors`; what nobody foresaw is
logged under a reference. Nothing is queued: a request is worked on at once or refused.
"""

from __future__ import annotations

import logging

from headrace.faces.gateway import console, functions, insight, schedules, streams, trouble
from headrace.faces.gateway.door import Door, Routes
from headrace.faces.gateway.errors import HungUp, answer_error, answer_surprise
from headrace.faces.gateway.requests import Receive, Request, Scope, Send
from headrace.faces.gateway.responses import Response
from headrace.faces.gateway.routes import Router
from headrace.model.errors import HeadraceError

_log = logging.getLogger("headrace.gateway")
_ROOMS = (streams, functions, trouble, insight, console, schedules)


def route_table() -> Routes:
    """Every route of the door."""
    routes: Routes = Router()
    for room in _ROOMS:
        room.add_routes(routes)
    return routes


class Application:
    """Answers requests. One per gateway; safe for many at once."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._routes = route_table()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of connections are closed."""
        if scope["type"] != "http":
            return
        door = self._door
        began = door.rooms.clock.monotonic()
        request = Request(scope, receive, door.admission)
        pattern = "-"
        try:
            door.admission.check_headers(scope["headers"])
            handler, names, pattern = self._routes.find(request.method, request.path)
            door.admission.enter()
            try:
                response = await handler(door, request, names)
            finally:
                door.admission.leave(request.reserved)
        except HungUp:
            return
        except HeadraceError as error:
            response = answer_error(error)
        except Exception:  # noqa: BLE001 - the last resort: a bug must be an answer, not a dead door
            reference = f"{door.rooms.clock.now():x}"
            _log.exception("reference %s: %s %s broke", reference, request.method, pattern)
            response = answer_surprise(reference)
        door.metrics.answered(
            pattern, request.method, response.status, door.rooms.clock.monotonic() - began
        )
        await _send(send, response)


async def _send(send: Send, response: Response) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [
                (b"content-type", response.media),
                (b"content-length", b"%d" % len(response.body)),
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
                *response.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": response.body})
