"""Answers -> the bytes of HTTP/1.1. Pure.

What a function sets as a header must not be able to begin a line of its own: a name or value that
could is refused here, wherever it came from.
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
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_BODYLESS = frozenset({204, 304})
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_ALWAYS_LINES = b"".join(b"%b: %b\r\n" % each for each in _ALWAYS)
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
    """The `date` line, made again a few times a second. Owned by the HTTP server."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._until = -1.0
        self._line = b""

    def line(self, moment: float) -> bytes:
        """The line at `moment` of the loop's time."""
        if moment >= self._until:
            self._until = moment + FRESH_S
            second = self._now() // 1_000_000
            self._line = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._line


def chunk(part: bytes) -> bytes:
    """A part of an answer as it goes over the wire (RFC 9112, section 7.1); `LAST_CHUNK` ends it."""
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
    """The answer as it goes over the wire.

    Args:
        response: What is answered.
        extra: Headers of the route's own, besides the answer's.
        date: The `date` line.
        method: Of the request; an answer to `HEAD` has no body.
        last: Whether the connection closes after it.
        chunked: Whether this is only its head, and chunks follow.

    Raises:
        Invalid: It has a header that cannot be sent.
    """
    body = response.body
    if (
        response.media == JSON
        and response.status == 200
        and not (response.headers or extra or chunked)
    ):
        # Nearly every answer, and nothing of it comes from outside but the body.
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
        # The length of the body is not known here; it is not 0.
        del headers[1]
    headers = [each for each in headers if each[0] not in own]
    headers += response.headers
    headers += [each for each in extra if each[0] == b"vary" or each[0] not in own]
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
    """Whether the answer itself says that its connection closes."""
    return any(
        name == b"connection" and b"close" in value.lower() for name, value in response.headers
    )
