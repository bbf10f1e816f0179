"""A function's answer -> HTTP. Pure."""

from __future__ import annotations

import msgspec

from headrace.delivery.calls.direct import CallFailed
from headrace.http.response import JSON, Response
from headrace.http.streaming_response import COMMITTED, EVENTS, LINES, framed
from headrace.model.errors import Invalid
from headrace.model.reply import open_reply

_parts = msgspec.json.Decoder(list[msgspec.Raw])


def reply_of(answered: bytes) -> Response:
    """A function's answer as HTTP."""
    reply = open_reply(answered)
    if reply is None:
        return Response(200, answered)
    headers = tuple((name.encode(), text.encode("latin-1")) for name, text in reply.headers.items())
    return Response(reply.status, reply.body, reply.media.encode(), headers)


def not_of_its_type(error: CallFailed) -> Invalid | None:
    """What to say where a function failed because the body is not of its type."""
    if error.cause.kind != "Undecodable":
        return None
    return Invalid(f"the body is not what this route takes: {error.cause.message}")


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
