"""CORS for authors' routes: preflights, and the headers of answers (Fetch Standard, "CORS protocol"). Pure."""

from __future__ import annotations

from headrace.http.response import Response
from headrace.model.errors import Refused
from headrace.model.triggers.http import Cors

Headers = tuple[tuple[bytes, bytes], ...]


def allows(cors: Cors | None, origin: str) -> bool:
    """Return whether pages of `origin` may call the route."""
    return cors is not None and ("*" in cors.origins or origin in cors.origins)


def answer_headers(cors: Cors | None, origin: str | None) -> Headers:
    """Return the CORS headers of an answer to a page of `origin`."""
    if cors is None:
        return ()
    # Also without an `Origin`: a cache must not give an answer without CORS headers to a page.
    vary = ((b"vary", b"origin"),)
    if origin is None or not allows(cors, origin):
        return vary
    # `Cors` refuses `*` together with credentials, which browsers would reject.
    shown = "*" if "*" in cors.origins else origin
    found = [*vary, (b"access-control-allow-origin", shown.encode())]
    if cors.credentials:
        found.append((b"access-control-allow-credentials", b"true"))
    if cors.expose:
        found.append((b"access-control-expose-headers", ", ".join(cors.expose).encode()))
    return tuple(found)


def preflight(cors: Cors | None, origin: str | None, methods: list[str]) -> Response:
    """Return the answer to a preflight.

    Raises:
        Refused: Pages of that origin are not allowed.
    """
    if cors is None or origin is None or not allows(cors, origin):
        raise Refused(
            f"pages of `{origin}` may not call this route from a browser; its author names those that may "
            "with `cors=Cors(...)`"
        )
    return Response(
        204,
        b"",
        b"text/plain",
        (
            *answer_headers(cors, origin),
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", ", ".join(cors.headers).encode()),
            (b"access-control-max-age", b"%d" % cors.max_age),
        ),
    )
