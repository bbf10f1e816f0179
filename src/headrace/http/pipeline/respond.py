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
    """Convert a function's answer to HTTP."""
    reply = open_reply(answered)
    if reply is None:
        return Response(200, answered)
    headers = tuple((name.encode(), text.encode("latin-1")) for name, text in reply.headers.items())
    return Response(reply.status, reply.body, reply.media.encode(), headers)


def not_of_its_type(error: CallFailed) -> Invalid | None:
    """Return the client's error for a failure because of the body's type; None for any other failure."""
    if error.cause.kind != "Undecodable":
        return None
    return Invalid(f"the body is not what this route takes: {error.cause.message}")


def in_parts(response: Response, accept: str, *, live: bool = False) -> Response:
    """Convert a list to server-sent events or to lines, for a client that wants one of them.

    The answer is complete and committed. At a `live` route it looks as if it had been sent in parts: it is
    the answer to a repetition, or to a client that could not see its end.
    """
    events, lines = EVENTS.decode() in accept, live or LINES.decode() in accept
    if not (events or lines) or not (response.status == 200 or live):
        return response
    # Only lists have parts; anything else is answered as it is.
    if response.media != JSON or not response.body.startswith(b"["):
        return response
    parts: list[msgspec.Raw] = _parts.decode(response.body)
    media = EVENTS if events else LINES
    body = b"".join(framed(bytes(part), media) for part in parts)
    if live and events:
        body += COMMITTED
    return Response(response.status, body, media, response.headers)
