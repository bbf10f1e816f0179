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
    door: ApiContext, request: IncomingRequest, found: Found, extra: Headers
) -> Response:
    """Answer a request at an author's route; `extra` are headers of the route's own.

    Raises:
        HeadraceError: It is refused, or the function failed; the door's table says how to answer.
    """
    target = found.target
    says = target.says
    free = target.auth is None and target.rate is None
    who = "" if free else await _admitted(door, request, target)
    raw = await request.body(says.max_bytes, packed=True)
    if isinstance(says, Proxy):
        return await pass_through(door, request, says, found.params, raw)
    texts = query_texts(request)
    if isinstance(says, Http) and says.legacy is not None:
        texts_once = {name: given[-1] for name, given in texts.items()}
        sticky = picked(says.legacy.sticky, request, found.params, texts_once, b"")
        if takes_share(says.legacy, says.path, sticky, door.rooms.entropy.uniform(0, 1)):
            return await pass_on(door, request, says, raw)
    event_id = None
    if isinstance(says, Webhook):
        event_id = _signed(door, request, says, raw)
    body = raw
    if (encoding := request.headers.get(b"content-encoding")) is not None:
        body = unpack(encoding.decode("latin-1"), raw, says.max_bytes)
        request.reserve(len(body) - len(raw) if len(body) > len(raw) else 0)
    if isinstance(says, Webhook) and (challenge := _challenge(says, body)) is not None:
        return Response(200, challenge, b"text/plain")
    query = typed_query(says, target.query, texts, found.params)
    payload = payload_of(says, target.body, request.method, body, query, found.params)
    headers = carried(says, request, found.params, query)
    token = idempotency_key(request)
    # A client that tries again from another network is the same one: only tokens keep keys apart.
    once = _name(f"{who}\n{request.method} {says.path}\n{token}") if token else ""
    digest = digest_of(request, body) if once else b""
    if target.stream:
        key = picked(says.key, request, found.params, query, payload)
        event = Event(payload, key, id=event_id or once or None, headers=headers)
        return await _keep(door, target, event, b"" if event_id else digest)
    live = isinstance(says, Http) and says.mode == "live"
    outlet = request.open_outlet(extra) if live else None
    answered = await _call(door, target, payload, headers, once, digest, outlet)
    if outlet is not None and outlet.state is AnswerState.BEGUN:
        outlet.end()
        return answered
    accept = request.header("accept") or ""
    return in_parts(answered, accept, live=live) if accept or live else answered


async def _admitted(door: ApiContext, request: IncomingRequest, target: Target) -> str:
    """Whose token came along: its id, or "" where none is asked for.

    Raises:
        TooOften: More often than the route allows.
        Unauthenticated, Refused: Without a token that is good for it.
    """
    who, address = "", client_name(request.client)
    now = door.rooms.clock.monotonic()
    if target.auth is not None:
        try:
            token = await door.rooms.tokens.check(
                request.header("authorization"), target.auth.scope
            )
        except Refused:
            # Whoever tries tokens out is slowed down like everybody else.
            if target.rate is not None:
                door.buckets.take(target.name, address, target.rate, now)
            raise
        who = token.id
    if target.rate is not None:
        door.buckets.take(target.name, who or address, target.rate, now)
    return who


def _signed(door: ApiContext, request: IncomingRequest, says: Webhook, raw: bytes) -> str:
    """The id of a message that is signed.

    Raises:
        Forged: It is not.
        Unavailable: It cannot be told, for want of a secret; the sender will try again.
    """
    now = door.rooms.clock.now() / 1e6
    try:
        secrets = [door.rooms.secrets.value(each) for each in says.signature.secrets]
        return verify(says.signature, secrets, request.headers, raw, now=now)
    except Misuse as error:
        _log.error("webhook `%s` takes nothing: %s", says.path, error)
        raise Unavailable("this webhook is not set up yet; the node's log says why") from error


def _challenge(says: Webhook, body: bytes) -> bytes | None:
    """What Slack wants to hear once, to see that somebody who knows the secret is there."""
    if not isinstance(says.signature, Slack) or b"url_verification" not in body:
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
    """What tells a request from another one under the same key."""
    head = b"%b?%b\n" % (request.path.encode(), request.raw_query)
    return digest_of_body(head + body)


def digest_of_body(body: bytes) -> bytes:
    """The same, where nothing but the body counts."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def _name(once: str) -> str:
    return hashlib.sha256(once.encode()).hexdigest()


async def _keep(door: ApiContext, target: Target, event: Event, digest: bytes) -> Response:
    """Make the request durable, and say where one can ask what became of it."""
    assert target.function is not None  # noqa: S101 - only functions have streams
    rooms, origin = door.rooms, f"http{target.says.path}"
    if digest and isinstance(target.says, Http):
        keeping = RequestRecorder(
            rooms.publisher,
            storage=rooms.storage,
            broker=rooms.broker,
            clock=rooms.clock,
            entropy=rooms.entropy,
        )
        position, is_known = await keeping.keep(
            target.stream,
            event,
            mark=pack(target.stream, event.id or ""),
            digest=digest,
            seconds=float(target.says.dedupe),
            origin=origin,
        )
    else:
        published = await rooms.publisher.publish(target.stream, [event], hops=1, origin=origin)
        position = published.positions[0]
        is_known = position is None
    if position is None:
        return json_response({"accepted": True, "duplicate": True}, status=202)
    place = await run_address(door, position)
    return json_response(
        {"accepted": True, "duplicate": is_known, "status": place},
        status=202,
        headers=((b"location", place.encode()),),
    )


async def run_address(door: ApiContext, position: Position) -> str:
    """Where to ask what became of a kept request."""
    text = f"{position.stream}-{position.partition}-{position.offset}"
    return f"/runs/{text}-{await door.rooms.marks.mark(text)}"


async def _call(
    door: ApiContext,
    target: Target,
    payload: bytes,
    headers: dict[str, str],
    once: str,
    digest: bytes,
    outlet: StreamedAnswer | None,
) -> Response:
    assert target.function is not None  # noqa: S101 - a proxy is passed through before
    try:
        answered = await door.rooms.direct.call(
            target.function.name,
            payload,
            key=once,
            digest=digest,
            timeout_s=target.says.timeout,
            headers=headers,
            listener=outlet,
            judge=target.promise if door.rooms.check_answers else None,
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
    in parts: it is the answer to a repetition, or to a client that could not tell its end.
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
