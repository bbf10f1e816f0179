"""Answers -> the bytes of HTTP/1.1. Pure.

A header must not be able to begin another line: a name or value that could is refused here, wherever it
came from (response splitting, RFC 9112, section 11.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from headrace.http.cors import Headers
from headrace.http.response import JSON, Response
from headrace.model.errors import Invalid

FRESH_S = 0.25
"""Seconds for which a `date` line is used again; the header has a resolution of a second."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_BODYLESS = frozenset({204, 304})
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_ALWAYS_LINES = b"".join(b"%b: %b\r\n" % each for each in _ALWAYS)
# A token, and a field value without control characters (RFC 9110, sections 5.6.2 and 5.5).
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class Date:
    """The `date` line, formatted a few times a second and not for every answer. Owned by the HTTP server."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._until = -1.0
        self._line = b""

    def line(self, moment: float) -> bytes:
        """Return the line at `moment`, in the loop's time."""
        if moment >= self._until:
            self._until = moment + FRESH_S
            second = self._now() // 1_000_000
            self._line = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._line


def chunk(part: bytes) -> bytes:
    """Return a part of an answer as a chunk (RFC 9112, section 7.1); `LAST_CHUNK` ends the answer."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def written(
    response: Response,
    extra: Headers,
    *,
    date: bytes,
    method: str,
    last: bool,
    chunked: bool = False,
) -> bytes:
    """Return the bytes of an answer.

    Args:
        response: The answer.
        extra: Headers to add to the answer's own.
        date: The `date` line.
        method: The request's method; an answer to `HEAD` has no body.
        last: Whether the connection closes after it.
        chunked: Whether only the head is written, and chunks follow.

    Raises:
        Invalid: It has a header that cannot be sent.
    """
    body = response.body
    if (
        response.media == JSON
        and response.status == 200
        and not (response.headers or extra or chunked)
    ):
        # Nearly every answer. Nothing of its head comes from outside, so it needs no check.
        return (
            b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n%b"
            % (
                date,
                len(body),
                _ALWAYS_LINES,
                b"connection: close\r\n" if last else b"",
                b"" if method == "HEAD" else body,
            )
        )
    own = {name for name, _ in response.headers}
    headers = [
        (b"content-type", response.media),
        (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"%d" % len(body)),
        *_ALWAYS,
    ]
    if method == "HEAD" and not body:
        # The length that `GET` would have is unknown here, and 0 would be wrong; RFC 9110, section 8.6,
        # allows to leave it out.
        del headers[1]
    headers = [each for each in headers if each[0] not in own]
    headers += response.headers
    # `vary` may be repeated, and leaving out the route's would let a cache mix up origins.
    headers += [each for each in extra if each[0] == b"vary" or each[0] not in own]
    # RFC 9110, section 8.6: no `Content-Length` with 204; a 304 has none of its own here.
    if response.status in _BODYLESS:
        headers = [each for each in headers if each[0] not in {b"content-length", b"content-type"}]
    lines = [_STATUS_LINES[response.status], date]
    for name, value in headers:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            shown = name.decode("latin-1")
            raise Invalid(f"the answer has the header `{shown:.64}`, which cannot be sent")
        lines.append(b"%b: %b\r\n" % (name, value))
    if last and b"connection" not in own:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if method != "HEAD" and response.status not in _BODYLESS:
        lines.append(body)
    return b"".join(lines)


def closes(response: Response) -> bool:
    """Return whether the answer has `Connection: close`."""
    return any(
        name == b"connection" and b"close" in value.lower() for name, value in response.headers
    )
