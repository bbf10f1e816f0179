"""Requests that are forwarded to another service: through a proxy's functions, or as a route's share.

Hop-by-hop headers are removed in both directions, and a token of this node never leaves it. The service
learns the client from `X-Forwarded-For`, `-Proto` and `-Host`, which only this HTTP server sets.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec

from headrace.client.http_pool import Headers, ServiceAnswer, ServiceRequest, end_to_end
from headrace.http.context import ApiContext
from headrace.http.pipeline.payload_binding import plain_query, query_texts
from headrace.http.request import IncomingRequest, joint
from headrace.http.response import Response
from headrace.model.errors import Corrupt, Invalid
from headrace.model.reply import open_reply
from headrace.model.route import segments_of
from headrace.model.triggers.http import METHODS, Http, Legacy, Proxy
from headrace.security.tokens import is_ours

_FORWARDED = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"}
)
_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_SHARES = 1 << 32


class _ProxyRequest(msgspec.Struct):
    """A request as a `before` function returned it."""

    method: str
    path: str
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: bytes = b""


_proxy_request = msgspec.json.Decoder(_ProxyRequest)


def takes_share(legacy: Legacy, path: str, sticky: str | None, chance: float) -> bool:
    """Return whether a request belongs to the share that goes to the legacy system.

    The answer for a sticky value is always the same, and a growing share only adds values to it.
    """
    if sticky is not None:
        # A hash and not `hash()`, which differs in every process. With the path in it, two routes
        # do not move the same clients first. The threshold moves over fixed points, so a larger
        # share contains every smaller one.
        mark = hashlib.sha256(f"{path}\n{sticky}".encode()).digest()
        chance = int.from_bytes(mark[:4], "big") / _SHARES
    return chance < legacy.share


async def pass_on(
    context: ApiContext, request: IncomingRequest, trigger: Http, raw: bytes
) -> Response:
    """Forward a request unchanged.

    Raises:
        UpstreamFailed, UpstreamLate: There is no answer.
    """
    legacy = trigger.legacy
    assert legacy is not None  # noqa: S101 - checked before
    headers = _forwarded(context, request)
    ask = ServiceRequest(
        legacy.upstream,
        request.method,
        _target(request.path, request),
        headers,
        raw,
        seconds=float(legacy.timeout),
        max_bytes=trigger.max_bytes,
    )
    return _response(await context.services.outgoing.ask(ask), headed=request.method == "HEAD")


async def pass_through(
    context: ApiContext,
    request: IncomingRequest,
    trigger: Proxy,
    params: dict[str, Any],
    raw: bytes,
) -> Response:
    """Run `before`, forward the request, and run `after`.

    Raises:
        UpstreamFailed, UpstreamLate: There is no answer.
        CallFailed: A `before` or `after` function failed.
    """
    path = "/" + "/".join(
        request.path.split("/")[1 + len(segments_of(trigger.path, trigger.path)) :]
    )
    headers = _forwarded(context, request)
    method, target, body = request.method, _target(path if path != "/" else "", request), raw
    if trigger.before:
        shown = {
            "method": method,
            "path": path,
            "params": params,
            "query": plain_query(query_texts(request)),
            "headers": _texts(headers),
            "body": base64.b64encode(raw).decode(),
            "client": request.client,
        }
        answered = await context.services.direct.call(trigger.before, msgspec.json.encode(shown))
        if (reply := open_reply(answered)) is not None:
            return Response(reply.status, reply.body, reply.media.encode(), _bytes(reply.headers))
        asked = _shaped(answered)
        method, body, headers = asked.method, asked.body, _bytes(asked.headers)
        target = _written(asked)
    if trigger.after:
        headers = tuple(each for each in headers if each[0] != b"accept-encoding")
    ask = ServiceRequest(
        trigger.upstream,
        method,
        target,
        headers,
        body,
        seconds=float(trigger.timeout),
        max_bytes=trigger.max_bytes,
    )
    got = await context.services.outgoing.ask(ask)
    if not trigger.after:
        return _response(got, headed=request.method == "HEAD" == method)
    media = next((value for name, value in got.headers if name == b"content-type"), b"")
    given: dict[str, Any] = {
        "status": got.status,
        "media": media.decode("latin-1"),
        "headers": {
            name: text
            for name, text in _texts(got.headers).items()
            if name not in {"content-type", "content-length", "date", "server", "set-cookie"}
        },
        "body": base64.b64encode(got.body).decode(),
    }
    reply = open_reply(
        await context.services.direct.call(trigger.after, msgspec.json.encode(given))
    )
    if reply is None:
        raise Corrupt(f"`{trigger.after}` answered no reply; load its app again")
    cookies = tuple(each for each in got.headers if each[0] == b"set-cookie")
    return Response(
        reply.status, reply.body, reply.media.encode(), (*_bytes(reply.headers), *cookies)
    )


def _shaped(answered: bytes) -> _ProxyRequest:
    try:
        asked = _proxy_request.decode(answered)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a function that shapes requests answered none: {error}") from error
    if (
        asked.method not in (*METHODS, "HEAD")
        or not _PATH.fullmatch(asked.path)
        or "#" in asked.path
    ):
        raise Invalid(
            "a function that shapes requests made a method or path that cannot be sent; the path "
            "begins with `/` and is percent-encoded"
        )
    return asked


def _written(asked: _ProxyRequest) -> str:
    from urllib.parse import urlencode

    query = urlencode(asked.query, doseq=True)
    path = asked.path if asked.path != "/" else ""
    return f"{path}?{query}" if query else path


def _target(path: str, request: IncomingRequest) -> str:
    raw = request.raw_query
    return f"{path}?{raw.decode('latin-1')}" if raw else path


def _forwarded(context: ApiContext, request: IncomingRequest) -> Headers:
    """Return the request's headers for the next hop."""
    # `Host` is that of the upstream, and the pool writes `Content-Length` itself. Forwarding
    # headers of the client are replaced: an upstream that trusts this node would believe a forged
    # address.
    kept = [
        (name, value)
        for name, value in end_to_end(request.fields)
        if name not in _FORWARDED
        and name not in {b"host", b"content-length"}
        and not (name == b"authorization" and is_ours(value))
    ]
    host = request.headers.get(b"host", b"")
    return (
        *kept,
        (b"x-forwarded-for", request.client.encode("ascii", "replace")),
        (b"x-forwarded-proto", context.scheme.encode()),
        (b"x-forwarded-host", host),
    )


def _response(answered: ServiceAnswer, *, headed: bool) -> Response:
    """Convert the service's answer; that to `HEAD` keeps the service's `Content-Length`."""
    # RFC 9110, section 8.6: an answer to `HEAD` may state the length that `GET` would have. For
    # any other the writer counts the bytes that it sends.
    left = {b"date", b"server"} if headed else {b"content-length", b"date", b"server"}
    media = b"application/octet-stream"
    headers = []
    for name, value in answered.headers:
        if name == b"content-type":
            media = value
        elif name not in left:
            headers.append((name, value))
    return Response(answered.status, answered.body, media, tuple(headers))


def _texts(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        text = value.decode("latin-1")
        key = name.decode("latin-1")
        found[key] = f"{found[key]}{joint(name).decode()}{text}" if key in found else text
    return found


def _bytes(headers: dict[str, str]) -> Headers:
    """Convert a function's headers, and refuse those that cannot be sent."""
    found = []
    for name, text in headers.items():
        raw_name, value = (
            name.lower().encode("latin-1", "replace"),
            text.encode("latin-1", "replace"),
        )
        # A CR or LF in a value would begin another header, or another answer (response splitting,
        # RFC 9112, section 11.1).
        if not _NAME.fullmatch(raw_name) or any(byte < 32 or byte == 127 for byte in value):
            raise Invalid(f"a function set the header `{name:.64}`, which cannot be sent")
        found.append((raw_name, value))
    return end_to_end(found)
