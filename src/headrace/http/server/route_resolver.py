"""A request's head -> the pipeline of its route: an author's, or one of the platform's own paths.

Authors' routes come first; the table of the platform's paths is filled once. Sends no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from headrace.http.api import (
    dead_letters,
    functions,
    queues,
    replays,
    schedules,
    state,
    status,
    streams,
    tokens,
    windows,
)
from headrace.http.api.api_document import api_document
from headrace.http.console import routes as console
from headrace.http.context import ApiContext
from headrace.http.cors import Headers, answer_headers
from headrace.http.pipeline.api_routes import ApiRoute, CheckQuery, OwnSteps, Routes
from headrace.http.pipeline.app_routes import RouteTable
from headrace.http.pipeline.auth import AuthorizePlatform
from headrace.http.pipeline.call import RunHandler
from headrace.http.pipeline.route_compiler import compile_route
from headrace.http.pipeline.route_pipeline import RoutePipeline
from headrace.http.pipeline.step import RoutedRequest, RouteStep
from headrace.http.problem_details import NotAllowed
from headrace.http.request import IncomingRequest
from headrace.http.router import Router, unquoted
from headrace.model.errors import Invalid, Unknown
from headrace.model.function import AppSpec
from headrace.model.route import API_PREFIX
from headrace.security.access import scope_of

MAX_PATHS = 1_024
MAX_KNOWN_PATH = 256
_RESOURCES = (
    streams,
    functions,
    dead_letters,
    state,
    status,
    console,
    schedules,
    tokens,
    replays,
    queues,
    windows,
)


class PathSet(Enum):
    """The paths that a listener serves.

    Attributes:
        ALL: Everything.
        ROUTES: Authors' routes, their document, and health.
        API: Everything but authors' routes.
    """

    ALL = auto()
    ROUTES = auto()
    API = auto()


def route_table(served: PathSet = PathSet.ALL) -> Router[ApiRoute]:
    """Every path of the platform's own that a listener serves."""
    table: Router[ApiRoute] = Router()
    status.add_shared_routes(Routes(table))
    if served is PathSet.ROUTES:
        return table
    for resource in _RESOURCES:
        resource.add_routes(Routes(table, API_PREFIX))
    Routes(table, API_PREFIX).add("GET", "/openapi.json", api_document(table))
    for pages in (status, console):
        pages.add_root_routes(Routes(table))
    return table


class RouteResolver:
    """Finds pipelines. One per listener; safe for many requests at once.

    Attributes:
        holds: Returns whether a list of apps is still what is deployed, and so whether what was resolved is valid.
    """

    def __init__(self, context: ApiContext, served: PathSet = PathSet.ALL) -> None:
        self._context = context
        self._served = served
        self._routes = route_table(served)
        # Clients ask for the same few paths again and again.
        self._known: dict[tuple[str, str], RoutePipeline] = {}
        apps = {} if served is PathSet.API else context.services.supervisor.apps
        self._authored = RouteTable(apps, partial(compile_route, context))
        self.holds: Callable[[list[AppSpec]], bool] = self._authored.holds

    @property
    def apps(self) -> list[AppSpec]:
        """The apps for which `resolve` answers now."""
        return self._authored.apps

    def resolve(self, request: IncomingRequest) -> tuple[RoutePipeline, RoutedRequest]:
        """Return the pipeline of the request's route, and the request as it enters it.

        Raises:
            Invalid, Refused: The host is missing or foreign, or a path parameter is not of its type.
            Unknown, NotAllowed: The path has no route, or not with this method.
        """
        method, path = request.method, request.path
        # Before anything else is looked at: a page that reached this node by DNS rebinding must
        # not even learn which paths exist.
        self._context.admission.check_host(request.fields, request.headers)
        asked = None
        if method == "OPTIONS":
            # A preflight is answered by the route of the method that the browser is about to use.
            asked = request.header("access-control-request-method")
        found = self._authored.find(method, path, asked)
        if found is not None:
            return found.pipeline, RoutedRequest(request, found.params, found.methods)
        return self._known.get((method, path)) or self._own(method, path), RoutedRequest(request)

    def _own(self, method: str, path: str) -> RoutePipeline:
        """The pipeline of one of the platform's own paths."""
        # An unknown path is 404 for everybody: no token would help.
        try:
            route, names, pattern = self._routes.find(method, path)
        except Unknown as error:
            if self._served is PathSet.ROUTES:
                raise
            raise Unknown(f"{error}; {self._hint(path)}") from None
        scope = scope_of(method, [unquoted(part) for part in path.split("/")[1:]])
        context = self._context
        guards: list[RouteStep] = [AuthorizePlatform(context, scope)]
        if route.query is not None:
            guards.append(CheckQuery(route.query))
        if isinstance(route.answer, OwnSteps):
            steps, end = route.answer.compile(context, names)
            pipeline = RoutePipeline((*guards, *steps), end, pattern=pattern, owner=names[0])
        else:
            end = RunHandler(context, route.answer, names)
            pipeline = RoutePipeline(guards, end, pattern=pattern)
        if len(path) <= MAX_KNOWN_PATH:
            if len(self._known) >= MAX_PATHS:
                self._known.clear()
            self._known[method, path] = pipeline
        return pipeline

    def _hint(self, path: str) -> str:
        """Return a hint for a path without a route: perhaps a path of the API was meant."""
        meant, none = API_PREFIX + path, f"`GET {API_PREFIX}` lists the platform's own paths"
        try:
            self._routes.find("GET", meant)
        except NotAllowed:
            pass
        except (Unknown, Invalid):
            return none
        return f"the platform's own path is `{meant:.200}`"

    def is_authored(self, path: str) -> bool:
        """Return whether the path belongs to an author's route."""
        return self._authored.is_authored(path)

    def error_headers(self, request: IncomingRequest) -> Headers:
        """Return the CORS headers that let a page read why it was refused."""
        if (origin := request.headers.get(b"origin")) is None:
            return ()
        return answer_headers(self._authored.cors_at(request.path), origin.decode("latin-1"))
