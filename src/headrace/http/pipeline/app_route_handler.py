"""Answers requests at authors' routes: call and wait, keep and say 202, check a webhook, pass on.

The order is the same for all: rate, token, body, signature, types, and only then the function or
the log. What is refused has left nothing behind.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import msgspec

from headrace.delivery.calls.direct import CallFailed
from headrace.delivery.calls.idempotency import DIGEST_BYTES, RequestRecorder
from headrace.http.context import ApiContext
from headrace.http.cors import Headers
from headrace.http.pipeline.app_routes import Found, Target
from headrace.http.pipeline.content_encoding import unpack
from headrace.http.pipeline.event_bodies import MAX_IDEMPOTENCY_KEY
from headrace.http.pipeline.payload_binding import (
    carried,
    payload_of,
    picked,
    query_texts,
    typed_query,
)
from headrace.http.pipeline.proxy import pass_on, pass_through, takes_share
from headrace.http.rate_limit import client_name
from headrace.http.request import IncomingRequest
from headrace.http.response import JSON, Response, json_response
from headrace.http.streaming_response import (
    COMMITTED,
    EVENTS,
    LINES,
    AnswerState,
    StreamedAnswer,
    framed,
)
from headrace.model.errors import Invalid, Misuse, Refused, Unavailable
from headrace.model.event import Event
from headrace.model.record import Position
from headrace.model.reply import open_reply
from headrace.model.triggers.http import Http, Proxy, Webhook
from headrace.model.webhook_signature import Slack
from headrace.security.webhook_signatures import verify
from headrace.storage.kv.keys import pack

_log = logging.getLogger("headrace.http")
_json = msgspec.json.Decoder()
_parts = msgspec.json.Decoder(list[msgspec.Raw])


async def answer(
    context: ApiContext, request: IncomingRequest, found: Found, extra: Headers
) -> Response:
    """Answer a request at an author's route; `extra` are headers of the route's own.

    Raises:
        HeadraceError: It is refused, or the function failed; the server's table says how to answer.
    """
    target = found.target
    trigger = target.trigger
    free = target.auth is None and target.rate is None
    who = "" if free else await _admitted(context, request, target)
    raw = await request.body(trigger.max_bytes, packed=True)
    if isinstance(trigger, Proxy):
        return await pass_through(context, request, trigger, found.params, raw)
    texts = query_texts(request)
    if isinstance(trigger, Http) and trigger.legacy is not None:
        texts_once = {name: given[-1] for name, given in texts.items()}
        sticky = picked(trigger.legacy.sticky, request, found.params, texts_once, b"")
        if takes_share(
            trigger.legacy, trigger.path, sticky, context.services.entropy.uniform(0, 1)
        ):
            return await pass_on(context, request, trigger, raw)
    event_id = None
    if isinstance(trigger, Webhook):
        event_id = _signed(context, request, trigger, raw)
    body = raw
    if (encoding := request.headers.get(b"content-encoding")) is not None:
        body = unpack(encoding.decode("latin-1"), raw, trigger.max_bytes)
        request.reserve(len(body) - len(raw) if len(body) > len(raw) else 0)
    if isinstance(trigger, Webhook) and (challenge := _challenge(trigger, body)) is not None:
        return Response(200, challenge, b"text/plain")
    query = typed_query(trigger, target.query, texts, found.params)
    payload = payload_of(trigger, target.body, request.method, body, query, found.params)
    headers = carried(trigger, request, found.params, query)
    token = idempotency_key(request)
    # A client that tries again from another network is the same one: only tokens separate keys.
    once = _name(f"{who}\n{request.method} {trigger.path}\n{token}") if token else ""
    digest = digest_of(request, body) if once else b""
    if target.stream:
        key = picked(trigger.key, request, found.params, query, payload)
        event = Event(payload, key, id=event_id or once or None, headers=headers)
        return await _keep(context, target, event, b"" if event_id else digest)
    live = isinstance(trigger, Http) and trigger.mode == "live"
    streamed = request.streamed_answer(extra) if live else None
    answered = await _call(context, target, payload, headers, once, digest, streamed)
    if streamed is not None and streamed.state is AnswerState.STARTED:
        streamed.end()
        return answered
    accept = request.header("accept") or ""
    return in_parts(answered, accept, live=live) if accept or live else answered


async def _admitted(context: ApiContext, request: IncomingRequest, target: Target) -> str:
    """Whose token came along: its id, or "" where none is asked for.

    Raises:
        TooOften: More often than the route allows.
        Unauthenticated, Refused: Without a token that is good for it.
    """
    who, address = "", client_name(request.client)
    now = context.services.clock.monotonic()
    if target.auth is not None:
        try:
            token = await context.services.tokens.check(
                request.header("authorization"), target.auth.scope
            )
        except Refused:
            # A client that guesses tokens is slowed down like every other.
            if target.rate is not None:
                context.buckets.take(target.name, address, target.rate, now)
            raise
        who = token.id
    if target.rate is not None:
        context.buckets.take(target.name, who or address, target.rate, now)
    return who


def _signed(context: ApiContext, request: IncomingRequest, trigger: Webhook, raw: bytes) -> str:
    """The id of a message that is signed.

    Raises:
        Forged: It is not.
        Unavailable: It cannot be checked, for want of a secret; the sender will try again.
    """
    now = context.services.clock.now() / 1e6
    try:
        secrets = [context.services.secrets.value(each) for each in trigger.signature.secrets]
        return verify(trigger.signature, secrets, request.headers, raw, now=now)
    except Misuse as error:
        _log.error("webhook `%s` takes nothing: %s", trigger.path, error)
        raise Unavailable("this webhook is not set up yet; the node's log says why") from error


def _challenge(trigger: Webhook, body: bytes) -> bytes | None:
    """The answer to Slack's challenge, which it sends once to verify the address."""
    if not isinstance(trigger.signature, Slack) or b"url_verification" not in body:
        return None
    try:
        found: Any = _json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(found, dict) or found.get("type") != "url_verification":
        return None
    challenge = found.get("challenge")
    return challenge.encode() if isinstance(challenge, str) else None


def idempotency_key(request: IncomingRequest) -> str:
    """What the client calls the request, to repeat it; "" where it does not.

    Raises:
        Invalid: It has no length, or too much.
    """
    text = request.header("idempotency-key")
    if text is None:
        return ""
    text = text.strip().strip('"')
    if not text or len(text) > MAX_IDEMPOTENCY_KEY:
        raise Invalid(
            f"`Idempotency-Key` has {len(text)} characters; use 1 to {MAX_IDEMPOTENCY_KEY}"
        )
    return text


def digest_of(request: IncomingRequest, body: bytes) -> bytes:
    """A digest in which a request differs from another one under the same key."""
    head = b"%b?%b\n" % (request.path.encode(), request.raw_query)
    return digest_of_body(head + body)


def digest_of_body(body: bytes) -> bytes:
    """The same, where nothing but the body counts."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def _name(once: str) -> str:
    return hashlib.sha256(once.encode()).hexdigest()


async def _keep(context: ApiContext, target: Target, event: Event, digest: bytes) -> Response:
    """Make the request durable, and say where one can ask what became of it."""
    assert target.function is not None  # noqa: S101 - only functions have streams
    services, origin = context.services, f"http{target.trigger.path}"
    if digest and isinstance(target.trigger, Http):
        keeping = RequestRecorder(
            services.publisher,
            committer=services.supervisor.committer,
            broker=services.broker,
            clock=services.clock,
            entropy=services.entropy,
        )
        position, is_known = await keeping.keep(
            target.stream,
            event,
            mark=pack(target.stream, event.id or ""),
            digest=digest,
            seconds=float(target.trigger.dedupe),
            origin=origin,
        )
    else:
        published = await services.publisher.publish(target.stream, [event], hops=1, origin=origin)
        position = published.positions[0]
        is_known = position is None
    if position is None:
        return json_response({"accepted": True, "duplicate": True}, status=202)
    place = await run_address(context, position)
    return json_response(
        {"accepted": True, "duplicate": is_known, "status": place},
        status=202,
        headers=((b"location", place.encode()),),
    )


async def run_address(context: ApiContext, position: Position) -> str:
    """Where to ask what became of a kept request."""
    text = f"{position.stream}-{position.partition}-{position.offset}"
    return f"/runs/{text}-{await context.services.address_signer.mark(text)}"


async def _call(
    context: ApiContext,
    target: Target,
    payload: bytes,
    headers: dict[str, str],
    once: str,
    digest: bytes,
    streamed: StreamedAnswer | None,
) -> Response:
    assert target.function is not None  # noqa: S101 - a proxy is passed through before
    try:
        answered = await context.services.direct.call(
            target.function.name,
            payload,
            key=once,
            digest=digest,
            timeout_s=target.trigger.timeout,
            headers=headers,
            listener=streamed,
            judge=target.declared_answer if context.services.check_answers else None,
        )
    except CallFailed as error:
        if (invalid := not_of_its_type(error)) is not None:
            raise invalid from error
        raise
    return reply_of(answered)


def not_of_its_type(error: CallFailed) -> Invalid | None:
    """What to say where a function failed because the body is not of its type."""
    if error.cause.kind != "Undecodable":
        return None
    return Invalid(f"the body is not what this route takes: {error.cause.message}")


def reply_of(answered: bytes) -> Response:
    """A function's answer as HTTP."""
    reply = open_reply(answered)
    if reply is None:
        return Response(200, answered)
    headers = tuple((name.encode(), text.encode("latin-1")) for name, text in reply.headers.items())
    return Response(reply.status, reply.body, reply.media.encode(), headers)


def in_parts(response: Response, accept: str, *, live: bool = False) -> Response:
    """A list as server-sent events or as lines, for a client that asks for one of them.

    The answer is whole by then, and committed. At a `live` route it looks as if it had been sent
    in parts: it is the answer to a repetition, or to a client that could not see its end.
    """
    events, lines = EVENTS.decode() in accept, live or LINES.decode() in accept
    if not (events or lines) or not (response.status == 200 or live):
        return response
    if response.media != JSON or not response.body.startswith(b"["):
        return response
    parts: list[msgspec.Raw] = _parts.decode(response.body)
    media = EVENTS if events else LINES
    body = b"".join(framed(bytes(part), media) for part in parts)
    if live and events:
        body += COMMITTED
    return Response(response.status, body, media, response.headers)
