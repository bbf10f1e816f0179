"""The application behind the HTTP server: admit, find the route's pipeline, run it, answer. No framework.

Whatever a step or handler raises becomes an answer here, by the table in `problem_details`. Nothing is queued: a
request is worked on at once or refused.
"""

from __future__ import annotations

from headrace.http.console import routes as console
from headrace.http.context import ApiContext
from headrace.http.cors import Headers
from headrace.http.pipeline.step import RoutedRequest
from headrace.http.problem_details import HungUp, answer_failure
from headrace.http.request import IncomingRequest, wants_page
from headrace.http.response import Response
from headrace.http.server.fast_path import FastPath
from headrace.http.server.route_resolver import PathSet, RouteResolver
from headrace.model.errors import HeadraceError


class Application:
    """Answers requests. One per listener; safe for many at once."""

    def __init__(self, context: ApiContext, served: PathSet = PathSet.ALL) -> None:
        self._context = context
        self._resolver = RouteResolver(context, served)
        self.begin = FastPath(context, self._resolver).begin

    async def answer(self, request: IncomingRequest) -> tuple[Response, Headers] | None:
        """The answer, and headers of the route's own; None where the client is gone."""
        context, clock = self._context, self._context.services.clock
        started = clock.monotonic()
        pattern, function = "-", ""
        routed: RoutedRequest | None = None
        extra: Headers = ()
        try:
            pipeline, routed = self._resolver.resolve(request)
            pattern, function = pipeline.pattern, pipeline.owner
            context.admission.enter()
            try:
                response = await pipeline.run(routed)
            finally:
                context.admission.leave(request.reserved)
            extra = routed.extra
        except HungUp:
            return None
        except Exception as error:  # noqa: BLE001 - the last resort: a bug must become an answer
            response = answer_failure(error, f"{request.method} {pattern}", clock)
            if isinstance(error, HeadraceError):
                if wants_page(request) and not self._resolver.is_authored(request.path):
                    response = console.error_page(response, str(error))
                extra = (routed and routed.extra) or self._resolver.error_headers(request)
        seconds = clock.monotonic() - started
        context.answered(pattern, request.method, request.path, response.status, seconds, function)
        return response, extra
