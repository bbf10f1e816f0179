"""Steps that turn a request into the function's event: query, payload, headers, and the idempotency key."""

from __future__ import annotations

import hashlib

from headrace.delivery.calls.idempotency import DIGEST_BYTES
from headrace.http.pipeline.app_routes import Target
from headrace.http.pipeline.event_bodies import MAX_IDEMPOTENCY_KEY
from headrace.http.pipeline.payload_binding import carried, payload_of, query_texts, typed_query
from headrace.http.pipeline.step import BodyStep, HeadStep, HeadView, RoutedRequest, RouteStep
from headrace.http.request import IncomingRequest
from headrace.http.streaming_response import EVENTS, LINES
from headrace.model.codec import validate_json
from headrace.model.errors import Invalid
from headrace.model.triggers.http import Http, Webhook

MAX_CALL_S = 3_600.0
"""The longest timeout that a caller may set, in seconds."""


class BindQuery(HeadStep):
    """Convert the query to the type that the route declares."""

    def __init__(self, target: Target, trigger: Http | Webhook) -> None:
        self._target = target
        self._trigger = trigger

    def idle(self, head: HeadView) -> bool:
        """Return whether there is no query, and none is declared."""
        # A declared type may have defaults or required parameters, which also concern a request
        # without a query.
        return not head.raw_query and self._trigger.query_schema is None

    def take(self, routed: RoutedRequest) -> None:
        """Set the query.

        Raises:
            Invalid: It cannot be read, or is not of the route's type.
        """
        texts = query_texts(routed.request)
        routed.query = typed_query(self._trigger, self._target.query, texts, routed.params)


class BindPayload(BodyStep):
    """Build the event's value from body, query and path."""

    def __init__(self, target: Target, trigger: Http | Webhook) -> None:
        self._target = target
        self._trigger = trigger

    def take(self, routed: RoutedRequest) -> None:
        """Set the payload.

        Raises:
            Invalid: The body is not of the route's type.
        """
        routed.payload = payload_of(
            self._trigger,
            self._target.body,
            routed.request.method,
            routed.body,
            routed.query,
            routed.params,
        )


class BindJson(BodyStep):
    """Use the body as the payload, which is JSON."""

    def take(self, routed: RoutedRequest) -> None:
        """Set the payload; an empty body counts as `null`.

        Raises:
            Invalid: The body is not JSON.
        """
        # A handler without arguments is called by an empty `POST`.
        payload = routed.body or b"null"
        validate_json(payload)
        routed.payload = payload


class CarryHeaders(HeadStep):
    """Pass the rest of the request to the function, as headers of its event."""

    def __init__(self, trigger: Http | Webhook) -> None:
        self._trigger = trigger

    def take(self, routed: RoutedRequest) -> None:
        """Set the headers.

        Raises:
            TooLarge: They take too many bytes.
        """
        routed.headers = carried(self._trigger, routed.request, routed.params, routed.query)


class ReadAccept(HeadStep):
    """Read whether the client wants a list in parts."""

    def idle(self, head: HeadView) -> bool:
        """Return whether the client names no media type."""
        return b"accept" not in head.headers

    def take(self, routed: RoutedRequest) -> None:
        """Set `accept`, where it names a media type of answers in parts.

        Raises:
            Invalid: The header is not UTF-8 text.
        """
        accept = routed.request.header("accept") or ""
        # Without quality values (RFC 9110, section 12.5.1): no client is known that names one of
        # these types only to refuse it.
        if any(media.decode() in accept for media in (EVENTS, LINES)):
            routed.accept = accept


class ReadTimeout(HeadStep):
    """Read the timeout that the caller of a function sets in the query."""

    def idle(self, head: HeadView) -> bool:
        """Return whether there is no query."""
        return not head.raw_query

    def take(self, routed: RoutedRequest) -> None:
        """Set `timeout_s`.

        Raises:
            Invalid: It is not a duration, or too long.
        """
        routed.timeout_s = routed.request.seconds("timeout", None, high=MAX_CALL_S)


class ReadKey(RouteStep):
    """Read the `Idempotency-Key`, by which a repetition is recognised.

    Args:
        route: The author's route, which has its own keys; None where a function is called by its name.
    """

    def __init__(self, route: str | None = None) -> None:
        self._route = route

    def idle(self, head: HeadView) -> bool:
        """Return whether the client sends no key."""
        return b"idempotency-key" not in head.headers

    async def run(self, routed: RoutedRequest) -> None:
        """Set `once` and `digest`.

        Raises:
            Invalid: The key is empty or too long.
        """
        request = routed.request
        key = idempotency_key(request)
        if self._route is None:
            routed.once, routed.digest = key, _digest(routed.payload)
            return
        # A client that retries from another network is the same one, so the address is not part of
        # the key; its token is, or one client could read the answer to another's request.
        once = f"{routed.client}\n{request.method} {self._route}\n{key}"
        routed.once = hashlib.sha256(once.encode()).hexdigest()
        # A key reused for a different request is an error and not a repetition: the digest covers
        # path, query and body.
        head = b"%b?%b\n" % (request.path.encode(), request.raw_query)
        routed.digest = _digest(head + routed.body)


def idempotency_key(request: IncomingRequest) -> str:
    """Return the client's key for the request and its repetitions.

    Raises:
        Invalid: It is empty or too long.
    """
    text = (request.header("idempotency-key") or "").strip().strip('"')
    if not text or len(text) > MAX_IDEMPOTENCY_KEY:
        raise Invalid(
            f"`Idempotency-Key` has {len(text)} characters; use 1 to {MAX_IDEMPOTENCY_KEY}"
        )
    return text


def _digest(text: bytes) -> bytes:
    """Return a digest that differs for two different requests with the same key."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
