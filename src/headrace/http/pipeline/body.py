"""Steps that read a request's body: whole within its bound, unpacked, and with its signature checked."""

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
    """Read the whole body; one that came with its head is there already."""

    def __init__(self, context: ApiContext, max_bytes: int | None = None) -> None:
        most = context.admission.max_body_bytes
        self._max_bytes = most if max_bytes is None else min(most, max_bytes)

    def take(self, routed: RoutedRequest) -> None:
        """Check the size of the body that is there.

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
    """Refuse a packed body where nothing unpacks it."""

    def idle(self, head: HeadView) -> bool:
        """Whether the body is not packed."""
        return b"content-encoding" not in head.headers

    async def run(self, routed: RoutedRequest) -> None:
        """Refuse.

        Raises:
            Unsupported: The body is packed.
        """
        refuse_encoding(routed.request.headers)


class UnpackBody(RouteStep):
    """Unpack a body that came packed, within the route's bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def idle(self, head: HeadView) -> bool:
        """Whether the body is not packed."""
        return b"content-encoding" not in head.headers

    async def run(self, routed: RoutedRequest) -> None:
        """Unpack, and take the bytes out of the server's budget.

        Raises:
            Unsupported, Invalid, TooLarge: As `unpack` says.
            Overloaded: The bodies of all requests together are too large.
        """
        request, packed = routed.request, routed.body
        encoding = request.headers[b"content-encoding"].decode("latin-1")
        body = routed.body = unpack(encoding, packed, self._max_bytes)
        request.reserve(max(len(body) - len(packed), 0))


class VerifySignature(RouteStep):
    """Check a webhook's signature over the body as it came."""

    def __init__(self, context: ApiContext, trigger: Webhook) -> None:
        self._context = context
        self._trigger = trigger

    async def run(self, routed: RoutedRequest) -> None:
        """Note the message's id.

        Raises:
            Forged: It is not signed.
            Unavailable: It cannot be checked, for want of a secret; the sender will try again.
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
            raise Unavailable("this webhook is not set up yet; the node's log says why") from error


class AnswerChallenge(BodyStep):
    """Answer Slack's challenge, which it sends once, signed, to verify the address."""

    @staticmethod
    def is_needed(trigger: Webhook) -> bool:
        """Whether the sender has challenges."""
        return isinstance(trigger.signature, Slack)

    def take(self, routed: RoutedRequest) -> Response | None:
        """The challenge itself; None where the body is a message."""
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
