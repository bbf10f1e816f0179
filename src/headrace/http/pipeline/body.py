"""Steps that read a request's body within its bound, decompress it and verify its signature."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from headrace.http.context import ApiContext
from headrace.http.pipeline.content_encoding import unpack
from headrace.http.pipeline.step import BodyStep, HeadView, RoutedRequest, RouteStep
from headrace.http.request import refuse_encoding, too_large
from headrace.http.response import Response
from headrace.model.errors import Misuse, Unavailable
from headrace.model.triggers.http import Webhook
from headrace.model.webhook_signature import Slack
from headrace.security.webhook_signatures import verify

_log = logging.getLogger("headrace.http")
_json = msgspec.json.Decoder()


class ReadBody(BodyStep):
    """Read the whole body, unless it came with its head."""

    def __init__(self, context: ApiContext, max_bytes: int | None = None) -> None:
        # A route can only lower the node's limit: the budget of bytes in flight is computed from
        # it.
        most = context.admission.max_body_bytes
        self._max_bytes = most if max_bytes is None else min(most, max_bytes)

    def take(self, routed: RoutedRequest) -> None:
        """Check the size of a body that is complete.

        Raises:
            TooLarge: It is larger than the route or the node allows.
        """
        if len(routed.body) > self._max_bytes:
            raise too_large(len(routed.body), self._max_bytes)

    async def run(self, routed: RoutedRequest) -> None:
        """Wait for the body.

        Raises:
            TooLarge, Overloaded, HungUp: As `IncomingRequest.body` says.
        """
        routed.body = await routed.request.body(self._max_bytes, packed=True)


class RefuseEncoding(RouteStep):
    """Refuse a compressed body where nothing decompresses it."""

    def idle(self, head: HeadView) -> bool:
        """Return whether the body is not compressed."""
        return b"content-encoding" not in head.headers

    async def run(self, routed: RoutedRequest) -> None:
        """Refuse the request.

        Raises:
            Unsupported: The body is compressed.
        """
        refuse_encoding(routed.request.headers)


class UnpackBody(RouteStep):
    """Decompress a body, within the route's bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def idle(self, head: HeadView) -> bool:
        """Return whether the body is not compressed."""
        return b"content-encoding" not in head.headers

    async def run(self, routed: RoutedRequest) -> None:
        """Decompress, and reserve the additional bytes in the server's budget.

        Raises:
            Unsupported, Invalid, TooLarge: As `unpack` says.
            Overloaded: The bodies of all requests together are too large.
        """
        request, packed = routed.request, routed.body
        encoding = request.headers[b"content-encoding"].decode("latin-1")
        body = routed.body = unpack(encoding, packed, self._max_bytes)
        # The packed bytes are reserved already; both count until the request is answered.
        request.reserve(max(len(body) - len(packed), 0))


class VerifySignature(RouteStep):
    """Verify a webhook's signature over the body as it was sent, before it is decompressed or parsed."""

    def __init__(self, context: ApiContext, trigger: Webhook) -> None:
        self._context = context
        self._trigger = trigger

    async def run(self, routed: RoutedRequest) -> None:
        """Set the message's id.

        Raises:
            Forged: The signature is missing or wrong.
            Unavailable: The secret is missing; the sender will try again.
        """
        services, trigger = self._context.services, self._trigger
        now = services.clock.now() / 1e6
        try:
            secrets = [services.secrets.value(each) for each in trigger.signature.secrets]
            routed.event_id = verify(
                trigger.signature, secrets, routed.request.headers, routed.body, now=now
            )
        except Misuse as error:
            _log.error("webhook `%s` takes nothing: %s", trigger.path, error)
            # 503 rather than 500 or 400: senders repeat it, so no message is lost until the
            # operator has set the secret. Its name stays in the log.
            raise Unavailable("this webhook is not set up yet; the node's log says why") from error


class AnswerChallenge(BodyStep):
    """Answer the challenge that Slack sends once, signed, to verify the address."""

    @staticmethod
    def is_needed(trigger: Webhook) -> bool:
        """Return whether the sender sends challenges."""
        return isinstance(trigger.signature, Slack)

    def take(self, routed: RoutedRequest) -> Response | None:
        """Return the challenge itself; None where the body is a message."""
        # Every message passes here; parsing each of them for one challenge would be wasted.
        if b"url_verification" not in routed.body:
            return None
        try:
            found: Any = _json.decode(routed.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not isinstance(found, dict) or found.get("type") != "url_verification":
            return None
        challenge = found.get("challenge")
        if not isinstance(challenge, str):
            return None
        return Response(200, challenge.encode(), b"text/plain")
