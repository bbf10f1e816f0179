"""The application behind the HTTP server: admit a request, find its route's pipeline, run it, answer. No framework.

Any exception that a step or handler raises becomes an answer here, by the table in `problem_details`. Nothing is
queued: a request is processed at once or refused.
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
        """Return the answer and the route's extra headers; None where the client is gone."""
        context, clock = self._context, self._context.services.clock
        started = clock.monotonic()
        # Metrics label requests without a route as "-": their paths are the client's choice, and
        # a label for each would have no bound.
        pattern, function = "-", ""
        routed: RoutedRequest | None = None
        extra: Headers = ()
        try:
            pipeline, routed = self._resolver.resolve(request)
            pattern, function = pipeline.pattern, pipeline.owner
            # After `resolve`: a request for a foreign host or an unknown path takes no slot, so a
            # scanner cannot use them up.
            context.admission.enter()
            try:
                response = await pipeline.run(routed)
            finally:
                context.admission.leave(request.reserved)
            extra = routed.extra
        except HungUp:
            # Nobody reads an answer, and it must not count as an error of the node.
            return None
        except Exception as error:  # noqa: BLE001 - the last resort: a bug must become an answer
            response = answer_failure(error, f"{request.method} {pattern}", clock)
            if isinstance(error, HeadraceError):
                # An author's route keeps its problem+json even for a browser: the platform's
                # error page would show to the author's users.
                if wants_page(request) and not self._resolver.is_authored(request.path):
                    response = console.error_page(response, str(error))
                # A page may read a refusal only if it has CORS headers; without them the browser
                # hides status and body.
                extra = (routed and routed.extra) or self._resolver.error_headers(request)
        seconds = clock.monotonic() - started
        context.answered(pattern, request.method, request.path, response.status, seconds, function)
        return response, extra
