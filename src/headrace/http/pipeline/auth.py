"""Steps that say who may come in: by a token of the author's route, by `security/access`, by a page's origin."""

from __future__ import annotations

from typing import Final

from headrace.http.admission import check_origin
from headrace.http.context import ApiContext
from headrace.http.cors import allows, answer_headers, preflight
from headrace.http.pipeline.rate import LimitRate
from headrace.http.pipeline.step import HeadStep, HeadView, RoutedRequest, RouteStep
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.model.errors import Refused
from headrace.model.triggers.http import Bearer, Cors
from headrace.security.access import needs_proof

CONSOLE: Final = "/console"
_SITES = (None, b"none", b"same-origin")


async def authorize(context: ApiContext, request: IncomingRequest, scope: str) -> None:
    """Pass, where the request shows a key, a session or a token that is good for `scope`.

    Raises:
        Unauthenticated, Refused: It does not.
    """
    shown = request.header("authorization")
    if not (context.services.operator.shows(shown) or is_session(context, request)):
        await context.services.tokens.check(shown, scope)


def is_session(context: ApiContext, request: IncomingRequest) -> bool:
    """Whether the operator's browser goes to a page of the console by itself.

    Its cookie goes to no other path; a page of another origin, or a script, that asks with it is refused by what
    browsers say of each request.
    """
    headers = request.headers
    return (
        request.method in {"GET", "HEAD"}
        and (request.path == CONSOLE or request.path.startswith(f"{CONSOLE}/"))
        and headers.get(b"sec-fetch-dest", b"document") == b"document"
        and headers.get(b"sec-fetch-site") in _SITES
        and context.services.operator.knows(request.header("cookie"))
    )


class AuthorizePlatform(RouteStep):
    """Let in who may use one of the platform's own paths."""

    def __init__(self, context: ApiContext, scope: str) -> None:
        self._context = context
        self._scope = scope

    def idle(self, head: HeadView) -> bool:
        """Whether no page asks and no proof is needed."""
        return b"origin" not in head.headers and not self._needs_proof(head)

    def _needs_proof(self, head: HeadView) -> bool:
        return needs_proof(self._context.services.access, self._scope, head.peer, head.headers)

    async def run(self, routed: RoutedRequest) -> None:
        """Check the page's origin, then the proof.

        Raises:
            Unauthenticated, Refused: It may not come in.
        """
        request = routed.request
        if (origin := request.headers.get(b"origin")) is not None:
            check_origin(origin, request.headers.get(b"host", b""), self._context.scheme)
        if self._needs_proof(request):
            await authorize(self._context, request, self._scope)


class Authenticate(RouteStep):
    """Check the token that an author's route asks for."""

    def __init__(self, context: ApiContext, auth: Bearer, limit: LimitRate | None) -> None:
        self._tokens = context.services.tokens
        self._scope = auth.scope
        self._limit = limit

    async def run(self, routed: RoutedRequest) -> None:
        """Note the token's id.

        Raises:
            Unauthenticated, Refused: There is not a token that is good for the route.
            TooOften: A client without one came more often than the route allows.
        """
        try:
            token = await self._tokens.check(routed.request.header("authorization"), self._scope)
        except Refused:
            # A client that guesses tokens is slowed down like every other.
            if self._limit is not None:
                self._limit.take(routed)
            raise
        routed.client = token.id


class CheckOrigin(HeadStep):
    """Let pages of other origins ask where `cors=` says so, and say so in the answer."""

    def __init__(self, context: ApiContext, cors: Cors | None, *, signed: bool) -> None:
        self._context = context
        self._cors = cors
        self._signed = signed

    def idle(self, head: HeadView) -> bool:
        """Whether no page asks, and none may."""
        return self._cors is None and b"origin" not in head.headers

    def take(self, routed: RoutedRequest) -> None:
        """Set the answer's CORS headers.

        Raises:
            Refused: The page may not ask.
        """
        request, cors = routed.request, self._cors
        origin = request.header("origin")
        # A webhook is trusted for its signature, and a browser has none.
        if origin is not None and not allows(cors, origin) and not self._signed:
            if request.method == "OPTIONS":
                return
            check_origin(
                origin.encode("latin-1"), request.headers.get(b"host", b""), self._context.scheme
            )
        routed.extra = answer_headers(cors, origin)


class AnswerPreflight(HeadStep):
    """Answer a browser that asks beforehand whether a page may."""

    def __init__(self, cors: Cors | None) -> None:
        self._cors = cors

    def idle(self, head: HeadView) -> bool:
        """Whether it is not an `OPTIONS` request."""
        return head.method != "OPTIONS"

    def take(self, routed: RoutedRequest) -> Response:
        """What the page may.

        Raises:
            Refused: It may nothing.
        """
        return preflight(self._cors, routed.request.header("origin"), list(routed.methods))
