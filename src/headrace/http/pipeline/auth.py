"""Steps that authorize a request: by the token of an author's route, by `security/access`, by a page's origin."""

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
"""Values of `Sec-Fetch-Site` for a page that the user opened or that this node served; None: an old browser."""


async def authorize(context: ApiContext, request: IncomingRequest, scope: str) -> None:
    """Pass a request with the operator's key, a session or a token for `scope`.

    Raises:
        Unauthenticated, Refused: It has none of them.
    """
    shown = request.header("authorization")
    # The key and the session are compared in memory; only a token costs a look-up in the storage.
    if not (context.services.operator.shows(shown) or is_session(context, request)):
        await context.services.tokens.check(shown, scope)


def is_session(context: ApiContext, request: IncomingRequest) -> bool:
    """Return whether the request is the operator's browser opening a page of the console."""
    headers = request.headers
    # Browsers attach the cookie to requests that other pages cause, too. `Sec-Fetch-Dest` and
    # `Sec-Fetch-Site` cannot be set by scripts, so they show a page that was opened from one that
    # a foreign page or a script requests. A session only reads: `POST` needs the key (ADR 0029).
    return (
        request.method in {"GET", "HEAD"}
        and (request.path == CONSOLE or request.path.startswith(f"{CONSOLE}/"))
        and headers.get(b"sec-fetch-dest", b"document") == b"document"
        and headers.get(b"sec-fetch-site") in _SITES
        and context.services.operator.knows(request.header("cookie"))
    )


class AuthorizePlatform(RouteStep):
    """Authorize a request for one of the platform's own paths."""

    def __init__(self, context: ApiContext, scope: str) -> None:
        self._context = context
        self._scope = scope

    def idle(self, head: HeadView) -> bool:
        """Return whether no page sent the request and no proof is needed."""
        return b"origin" not in head.headers and not self._needs_proof(head)

    def _needs_proof(self, head: HeadView) -> bool:
        return needs_proof(self._context.services.access, self._scope, head.peer, head.headers)

    async def run(self, routed: RoutedRequest) -> None:
        """Check the page's origin, then the proof.

        Raises:
            Unauthenticated, Refused: The request is not allowed.
        """
        request = routed.request
        # Before the proof: with `access = "local"` a neighbour needs none, and a foreign page in
        # a neighbour's browser must not pass as that neighbour.
        if (origin := request.headers.get(b"origin")) is not None:
            check_origin(origin, request.headers.get(b"host", b""), self._context.scheme)
        if self._needs_proof(request):
            await authorize(self._context, request, self._scope)


class Authenticate(RouteStep):
    """Check the token that an author's route requires."""

    def __init__(self, context: ApiContext, auth: Bearer, limit: LimitRate | None) -> None:
        self._tokens = context.services.tokens
        self._scope = auth.scope
        self._limit = limit

    async def run(self, routed: RoutedRequest) -> None:
        """Set `client` to the token's id.

        Raises:
            Unauthenticated, Refused: The request has no token for the route.
            TooOften: A client without a token exceeded the route's rate.
        """
        try:
            token = await self._tokens.check(routed.request.header("authorization"), self._scope)
        except Refused:
            # The rate step comes later and never sees a refused request: without this, guesses of
            # tokens would be unlimited.
            if self._limit is not None:
                self._limit.take(routed)
            raise
        routed.client = token.id


class CheckOrigin(HeadStep):
    """Allow pages of other origins that `cors=` names, and set the answer's CORS headers."""

    def __init__(self, context: ApiContext, cors: Cors | None, *, signed: bool) -> None:
        self._context = context
        self._cors = cors
        self._signed = signed

    def idle(self, head: HeadView) -> bool:
        """Return whether no page sent the request, and no other origin is allowed."""
        return self._cors is None and b"origin" not in head.headers

    def take(self, routed: RoutedRequest) -> None:
        """Set the answer's CORS headers.

        Raises:
            Refused: The page's origin is not allowed.
        """
        request, cors = routed.request, self._cors
        origin = request.header("origin")
        # A webhook is trusted for its signature, which no page can make.
        if origin is not None and not allows(cors, origin) and not self._signed:
            if request.method == "OPTIONS":
                # `AnswerPreflight` refuses it, with an error that names `cors=`.
                return
            check_origin(
                origin.encode("latin-1"), request.headers.get(b"host", b""), self._context.scheme
            )
        routed.extra = answer_headers(cors, origin)


class AnswerPreflight(HeadStep):
    """Answer a browser's preflight request."""

    def __init__(self, cors: Cors | None) -> None:
        self._cors = cors

    def idle(self, head: HeadView) -> bool:
        """Return whether it is not an `OPTIONS` request."""
        return head.method != "OPTIONS"

    def take(self, routed: RoutedRequest) -> Response:
        """Return the methods and headers that the page may use.

        Raises:
            Refused: Its origin is not allowed.
        """
        return preflight(self._cors, routed.request.header("origin"), list(routed.methods))
