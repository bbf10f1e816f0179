"""Steps that make the function's event out of a request: query, payload, headers, and the key of a repetition."""

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


class BindQuery(HeadStep):
    """Read the query, as the type that the route declares."""

    def __init__(self, target: Target, trigger: Http | Webhook) -> None:
        self._target = target
        self._trigger = trigger

    def idle(self, head: HeadView) -> bool:
        """Whether there is no query, and none is declared."""
        return not head.raw_query and self._trigger.query_schema is None

    def take(self, routed: RoutedRequest) -> None:
        """Set the query.

        Raises:
            Invalid: It cannot be read, or is not of the route's type.
        """
        texts = query_texts(routed.request)
        routed.query = typed_query(self._trigger, self._target.query, texts, routed.params)


class BindPayload(BodyStep):
    """Make the event's value of body, query and path."""

    def __init__(self, target: Target, trigger: Http | Webhook) -> None:
        self._target = target
        self._trigger = trigger

    def take(self, routed: RoutedRequest) -> None:
        """Set the payload.

        Raises:
            Invalid: The body is not what the route takes.
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
    """Take the body as the payload, which is JSON."""

    def take(self, routed: RoutedRequest) -> None:
        """Set the payload; an empty body counts as `null`.

        Raises:
            Invalid: The body is not JSON.
        """
        payload = routed.body or b"null"
        validate_json(payload)
        routed.payload = payload


class CarryHeaders(HeadStep):
    """Hand the rest of the request to the function, as headers of its event."""

    def __init__(self, trigger: Http | Webhook) -> None:
        self._trigger = trigger

    def take(self, routed: RoutedRequest) -> None:
        """Set the headers.

        Raises:
            TooLarge: They take too many bytes.
        """
        routed.headers = carried(self._trigger, routed.request, routed.params, routed.query)


class ReadAccept(HeadStep):
    """Note whether the client asks for a list in parts."""

    def idle(self, head: HeadView) -> bool:
        """Whether it asks for none."""
        return b"accept" not in head.headers

    def take(self, routed: RoutedRequest) -> None:
        """Set `accept`, where it names a media type of answers in parts.

        Raises:
            Invalid: The header is not UTF-8 text.
        """
        accept = routed.request.header("accept") or ""
        if any(media.decode() in accept for media in (EVENTS, LINES)):
            routed.accept = accept


class ReadTimeout(HeadStep):
    """Note the time limit that the caller of a function sets in the query."""

    def idle(self, head: HeadView) -> bool:
        """Whether there is no query."""
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
        route: The author's route, whose keys are its own; None where a function is called by its name.
    """

    def __init__(self, route: str | None = None) -> None:
        self._route = route

    def idle(self, head: HeadView) -> bool:
        """Whether the client sends no key."""
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
        # A client that tries again from another network is the same one: only tokens separate keys.
        once = f"{routed.client}\n{request.method} {self._route}\n{key}"
        routed.once = hashlib.sha256(once.encode()).hexdigest()
        head = b"%b?%b\n" % (request.path.encode(), request.raw_query)
        routed.digest = _digest(head + routed.body)


def idempotency_key(request: IncomingRequest) -> str:
    """The client's name for the request, to repeat it.

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
    """In which a request differs from another one under the same key."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
