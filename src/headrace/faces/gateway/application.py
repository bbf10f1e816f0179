"""The application behind the door: admit, find the handler, run it, answer. No framework.

Whatever a handler raises becomes an answer here, by the table in `errors`; what nobody foresaw is
logged under a reference. Nothing is queued: a request is worked on at once or refused. Authors'
routes say who may come in; the platform's own paths are judged by `security/access`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from headrace.faces.gateway import (
    console,
    functions,
    insight,
    keys,
    queues,
    replays,
    schedules,
    streams,
    trouble,
)
from headrace.faces.gateway.answering import answer
from headrace.faces.gateway.authored import Found, Table
from headrace.faces.gateway.cors import Headers, allows, answer_headers, preflight
from headrace.faces.gateway.door import Door, Routes
from headrace.faces.gateway.errors import HungUp, answer_error, answer_surprise
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.responses import Response
from headrace.faces.gateway.routes import Router, unquoted
from headrace.model.errors import HeadraceError
from headrace.model.http import Webhook
from headrace.security.access import needs_token, scope_of

_log = logging.getLogger("headrace.gateway")
_ROOMS = (streams, functions, trouble, insight, console, schedules, keys, replays, queues)


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
        self._authored = Table(door.rooms.dispatcher.apps)

    async def answer(self, request: Request) -> tuple[Response, Headers] | None:
        """The answer, and headers of the route's own; None where nobody is left to hear it."""
        door = self._door
        clock = door.rooms.clock
        began = clock.monotonic()
        pattern = "-"
        extra: Headers = ()
        try:
            door.admission.check_host(request.fields)
            asked = request.header("access-control-request-method")
            found = self._authored.find(request.method, request.path, asked)
            work: Awaitable[Response]
            if found is None:
                await self._guard(request)
                handler, names, pattern = self._routes.find(request.method, request.path)
                work = handler(door, request, names)
            else:
                pattern = found.target.name
                extra = self._check_origin(request, found)
                if request.method == "OPTIONS":
                    work = _preflight(request, found)
                else:
                    work = answer(door, request, found)
            response = await self._run(request, work)
        except HungUp:
            return None
        except HeadraceError as error:
            response = answer_error(error)
        except Exception:  # noqa: BLE001 - the last resort: a bug must be an answer, not a dead door
            reference = f"{clock.now():x}"
            _log.exception("reference %s: %s %s broke", reference, request.method, pattern)
            response = answer_surprise(reference)
        door.metrics.answered(pattern, request.method, response.status, clock.monotonic() - began)
        return response, extra

    async def _run(self, request: Request, work: Awaitable[Response]) -> Response:
        admission = self._door.admission
        try:
            admission.enter()
        except HeadraceError:
            work.close()  # type: ignore[attr-defined]  # every handler is an `async def`
            raise
        try:
            return await work
        finally:
            admission.leave(request.reserved)

    async def _guard(self, request: Request) -> None:
        """Let in who may use the platform's own paths."""
        rooms = self._door.rooms
        if (origin := request.headers.get(b"origin")) is not None:
            self._door.admission.check_origin(origin)
        parts = [unquoted(part) for part in request.path.split("/")[1:]]
        scope = scope_of(request.method, parts)
        if needs_token(rooms.access, scope, request.client):
            await rooms.tokens.check(request.header("authorization"), scope)

    def _check_origin(self, request: Request, found: Found) -> Headers:
        """What an answer says to a page of another origin, where it may ask at all."""
        origin = request.header("origin")
        target = found.target
        # A webhook is trusted for its signature, and a browser has none.
        if (
            origin is not None
            and not allows(target.cors, origin)
            and not isinstance(target.says, Webhook)
        ):
            if request.method == "OPTIONS":
                return ()
            self._door.admission.check_origin(origin.encode())
        return answer_headers(target.cors, origin)


async def _preflight(request: Request, found: Found) -> Response:
    return preflight(found.target.cors, request.header("origin"), found.methods)
