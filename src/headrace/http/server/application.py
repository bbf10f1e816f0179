"""The application behind the HTTP server: admit, find the handler, run it, answer. No framework.

Whatever a handler raises becomes an answer here, by the table in `errors`; an unexpected exception is
logged under a reference. Nothing is queued: a request is worked on at once or refused. Authors'
routes say who may come in; the platform's own paths are judged by `security/access`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from headrace.http.admission import check_origin
from headrace.http.api import (
    dead_letters,
    functions,
    queues,
    replays,
    schedules,
    status,
    streams,
    tokens,
)
from headrace.http.console import routes as console
from headrace.http.context import ApiContext, Handler, Routes
from headrace.http.cors import Headers, allows, answer_headers, preflight
from headrace.http.pipeline.app_route_handler import answer
from headrace.http.pipeline.app_routes import Found, RouteTable
from headrace.http.pipeline.authentication import authorize
from headrace.http.problem_details import HungUp, answer_error, answer_surprise
from headrace.http.request import IncomingRequest, wants_page
from headrace.http.response import Response
from headrace.http.router import Router, unquoted
from headrace.http.server.fast_path import Calls
from headrace.model.errors import HeadraceError
from headrace.model.triggers.http import Webhook
from headrace.security.access import needs_proof, scope_of

_log = logging.getLogger("headrace.http")
MAX_PLACES = 1_024
MAX_KNOWN_PATH = 256
_RESOURCES = (streams, functions, dead_letters, status, console, schedules, tokens, replays, queues)


def route_table() -> Routes:
    """Every route of the HTTP server."""
    routes: Routes = Router()
    for resource in _RESOURCES:
        resource.add_routes(routes)
    return routes


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """Who answers at one of the platform's own paths, and the scope a token needs there."""

    scope: str
    handler: Handler
    names: tuple[str, ...]
    pattern: str


class Application:
    """Answers requests. One per gateway; safe for many at once."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._routes = route_table()
        # Clients ask for the same few paths again and again.
        self._places: dict[tuple[str, str], ApiRoute] = {}
        self._authored = RouteTable(context.services.supervisor.apps)
        self.begin = Calls(context, self._authored, self._routes).begin

    async def answer(self, request: IncomingRequest) -> tuple[Response, Headers] | None:
        """The answer, and headers of the route's own; None where the client is gone."""
        context = self._context
        clock = context.services.clock
        began = clock.monotonic()
        pattern = "-"
        extra: Headers = ()
        is_authored = False
        function = ""
        try:
            context.admission.check_host(request.fields, request.headers)
            asked = None
            if request.method == "OPTIONS":
                asked = request.header("access-control-request-method")
            is_authored = True
            found = self._authored.find(request.method, request.path, asked)
            is_authored = found is not None
            if found is None:
                place = self._places.get((request.method, request.path))
                if place is None:
                    place = await self._place(request)
                elif b"origin" in request.headers or needs_proof(
                    context.services.access, place.scope, request.peer, request.headers
                ):
                    await self._guard(request, place.scope)
                pattern = place.pattern
                if place.handler is functions.call:
                    function = place.names[0]
                context.admission.enter()
                try:
                    response = await place.handler(context, request, place.names)
                finally:
                    context.admission.leave(request.reserved)
            else:
                pattern = found.target.name
                function = found.target.owner
                extra = self._check_origin(request, found)
                context.admission.enter()
                try:
                    if request.method == "OPTIONS":
                        response = _preflight(request, found)
                    else:
                        response = await answer(context, request, found, extra)
                finally:
                    context.admission.leave(request.reserved)
        except HungUp:
            return None
        except HeadraceError as error:
            response = answer_error(error)
            if not is_authored and wants_page(request):
                response = console.error_page(response, str(error))
            extra = extra or self._error_headers(request)
        except Exception:  # noqa: BLE001 - the last resort: a bug must become an answer
            reference = f"{clock.now():x}"
            _log.exception("reference %s: %s %s broke", reference, request.method, pattern)
            response = answer_surprise(reference)
        seconds = clock.monotonic() - began
        context.answered(pattern, request.method, request.path, response.status, seconds, function)
        return response, extra

    def _error_headers(self, request: IncomingRequest) -> Headers:
        """CORS headers that let a page read why it was refused."""
        if (origin := request.headers.get(b"origin")) is None:
            return ()
        return answer_headers(self._authored.cors_at(request.path), origin.decode("latin-1"))

    async def _place(self, request: IncomingRequest) -> ApiRoute:
        """Who answers at one of the platform's own paths, once the request may ask for it."""
        parts = [unquoted(part) for part in request.path.split("/")[1:]]
        scope = scope_of(request.method, parts)
        # An unknown path is 404 for everybody: no token would help.
        handler, names, pattern = self._routes.find(request.method, request.path)
        await self._guard(request, scope)
        place = ApiRoute(scope, handler, names, pattern)
        if len(request.path) <= MAX_KNOWN_PATH:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            self._places[request.method, request.path] = place
        return place

    async def _guard(self, request: IncomingRequest, scope: str) -> None:
        """Let in who may use the platform's own paths."""
        services = self._context.services
        if (origin := request.headers.get(b"origin")) is not None:
            check_origin(origin, request.headers.get(b"host", b""), self._context.scheme)
        if needs_proof(services.access, scope, request.peer, request.headers):
            await authorize(self._context, request, scope)

    def _check_origin(self, request: IncomingRequest, found: Found) -> Headers:
        """What an answer says to a page of another origin, where it may ask at all."""
        origin = request.header("origin")
        target = found.target
        # A webhook is trusted for its signature, and a browser has none.
        if (
            origin is not None
            and not allows(target.cors, origin)
            and not isinstance(target.trigger, Webhook)
        ):
            if request.method == "OPTIONS":
                return ()
            check_origin(
                origin.encode("latin-1"), request.headers.get(b"host", b""), self._context.scheme
            )
        return answer_headers(target.cors, origin)


def _preflight(request: IncomingRequest, found: Found) -> Response:
    return preflight(found.target.cors, request.header("origin"), found.methods)
