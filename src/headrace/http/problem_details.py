"""The table that maps errors to an HTTP status and a problem+json body (RFC 9457).

In: an exception. Out: a response. An unexpected exception is answered 500 without its text, which is in
the log under the reference that the answer names.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from headrace.client.http_pool import UpstreamFailed, UpstreamLate
from headrace.delivery.calls.direct import WRONG_ANSWER, CallFailed
from headrace.delivery.calls.idempotency import KeyReused, UnderWay
from headrace.environment.clock import Clock
from headrace.http.response import Response, json_response
from headrace.model import errors
from headrace.model.jsonschema import Mismatch
from headrace.security.tokens import Unauthenticated
from headrace.security.webhook_signatures import Forged

_log = logging.getLogger("headrace.http")


class NotAllowed(errors.Misuse):
    """The path exists, the method does not."""

    code: ClassVar[str] = "method-not-allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class Unsupported(errors.Misuse):
    """The body is of a media type or encoding this HTTP server does not read."""

    code: ClassVar[str] = "unsupported-media-type"


class TooSlow(errors.Misuse):
    """The request did not arrive completely in time."""

    code: ClassVar[str] = "request-timeout"


class HungUp(errors.Unavailable):
    """The client went away before its request was complete."""

    code: ClassVar[str] = "hung-up"


# Most specific first: the first class of which an error is an instance decides. The last column is
# `Retry-After` in seconds; 0 leaves it out, for a repetition would fail in the same way.
_TABLE: tuple[tuple[type[errors.HeadraceError], int, str, int], ...] = (
    (NotAllowed, 405, "Method not allowed", 0),
    (KeyReused, 422, "Another request", 0),
    (UnderWay, 409, "Not answered yet", 1),
    (Unsupported, 415, "Unsupported media type", 0),
    (TooSlow, 408, "Request timeout", 0),
    (errors.Unknown, 404, "Not found", 0),
    (errors.TooLarge, 413, "Too large", 0),
    (errors.Misuse, 400, "Bad request", 0),
    (UpstreamLate, 504, "The service behind was too slow", 0),
    (UpstreamFailed, 502, "The service behind failed", 0),
    (errors.Overloaded, 429, "Too many requests", 1),
    (errors.DiskFull, 507, "Insufficient storage", 5),
    (errors.Unavailable, 503, "Unavailable", 1),
    (Unauthenticated, 401, "Not known", 0),
    (Forged, 401, "Not signed", 0),
    (errors.Refused, 403, "Refused", 0),
    (errors.Conflict, 409, "Conflict", 0),
    (errors.Fenced, 503, "Unavailable", 1),
    (errors.Corrupt, 500, "Stored data is damaged", 0),
    (errors.HeadraceError, 500, "Internal error", 0),
)


def problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    **more: Any,
) -> Response:
    """Return a problem+json answer."""
    body = {
        "type": f"urn:headrace:error:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    return json_response(body, status=status, media="application/problem+json", headers=headers)


def answer_error(error: errors.HeadraceError) -> Response:
    """Return the answer to an error of the family."""
    if isinstance(error, CallFailed):
        return answer_call_failure(error)
    for kind, status, title, retry_after in _TABLE:
        if isinstance(error, kind):
            headers: list[tuple[bytes, bytes]] = []
            if retry_after:
                after = getattr(error, "retry_after", retry_after)
                headers.append((b"retry-after", b"%d" % after))
            # RFC 9110, section 15.5.2: a 401 must name a challenge; section 15.5.6: a 405 must
            # name the allowed methods.
            if isinstance(error, Unauthenticated):
                headers.append((b"www-authenticate", b"Bearer"))
            if isinstance(error, NotAllowed):
                headers.append((b"allow", error.allowed.encode()))
            if status in {408, 413}:
                # The rest of the request would have to be read before the next one.
                headers.append((b"connection", b"close"))
            more: dict[str, Any] = {}
            if isinstance(error, Mismatch):
                more["errors"] = [{"path": error.path, "message": error.reason}]
            return problem(status, title, str(error), error.code, headers=tuple(headers), **more)
    raise AssertionError("the table ends with the root of the family")


def answer_call_failure(error: CallFailed) -> Response:
    """Return the answer to a failed call: 504 for a timeout, 502 for a crash, 500 for an exception."""
    cause = error.cause
    if cause.kind == WRONG_ANSWER:
        # The mismatch quotes the answer, which may hold data that the route must not show: it is only
        # in the function's log.
        return problem(
            500,
            "The function failed",
            f"`{error.function}` answered what its route does not "
            "declare; nothing it did was kept, and its log says what was wrong",
            error.code,
        )
    status, title = {
        "TimedOut": (504, "The function timed out"),
        "Crashed": (502, "The function crashed"),
        "OutOfMemory": (502, "The function ran out of memory"),
        "ProtocolError": (502, "The function broke the protocol"),
    }.get(cause.kind, (500, "The function failed"))
    return problem(
        status,
        title,
        str(error),
        error.code,
        cause={"kind": cause.kind, "message": cause.message},
    )


def answer_failure(error: BaseException, where: str, clock: Clock) -> Response:
    """Return the answer to an exception raised in `where`; log an unexpected one under a reference."""
    if isinstance(error, errors.HeadraceError):
        return answer_error(error)
    reference = f"{clock.now():x}"
    _log.error("reference %s: %s broke", reference, where, exc_info=error)
    return _answer_surprise(reference)


def _answer_surprise(reference: str) -> Response:
    """Return the answer to an unexpected exception; its text may hold secrets, so it stays in the log."""
    return problem(
        500,
        "Internal error",
        f"something broke that should not have; the node's log says what, under `{reference}`",
        "internal",
        reference=reference,
    )
