"""One request to a service behind this door, over its own connection, bounded in bytes and time.

In: an address, method, target, headers and body. Out: the answer, with what concerns one hop only
left out. A service that is away, late or endless is an error of the family, never a hanging task.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

import httptools

from headrace.model.errors import Unavailable

MAX_HEADER_BYTES = 65_536
CONNECT_S = 5.0
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
    }
)  # fmt: skip

Headers = tuple[tuple[bytes, bytes], ...]


class UpstreamFailed(Unavailable):
    """A service behind this door is away, or its answer is none."""

    code: ClassVar[str] = "upstream-failed"


class UpstreamLate(Unavailable):
    """A service behind this door did not answer in time."""

    code: ClassVar[str] = "upstream-late"


@dataclass(frozen=True)
class Answered:
    """What the service said."""

    status: int
    headers: Headers
    body: bytes


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that are meant for the other end, names in small letters."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        each.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for each in value.split(b",")
    }
    return tuple(
        (name, value) for name, value in lowered if name not in HOP_BY_HOP and name not in named
    )


async def exchange(
    upstream: str,
    method: str,
    target: str,
    headers: Headers,
    body: bytes,
    *,
    max_bytes: int,
    seconds: float,
) -> Answered:
    """Ask the service at `upstream` and take its whole answer.

    Args:
        upstream: `http://host:port/base`; `target` is put behind its path.
        method: The method.
        target: Path and query.
        headers: Sent as they are; `host` and `content-length` are added.
        body: The body.
        max_bytes: Of the answer's body.
        seconds: Until it must be whole.

    Raises:
        UpstreamFailed: It is away, broke off, or its answer is too large or no HTTP.
        UpstreamLate: It took too long.
    """
    parts = urlsplit(upstream)
    reading = _Reading(method, max_bytes)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            async with asyncio.timeout(min(CONNECT_S, seconds)):
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or (443 if parts.scheme == "https" else 80),
                    ssl=ssl.create_default_context() if parts.scheme == "https" else None,
                )  # fmt: skip
            path = parts.path.rstrip("/") + target
            if not path.startswith("/"):
                path = f"/{path}"
            lines = [
                f"{method} {path} HTTP/1.1".encode(),
                b"host: " + parts.netloc.encode(),
                b"connection: close",
                b"content-length: %d" % len(body),
                *(
                    name + b": " + value
                    for name, value in headers
                    if name not in {b"host", b"content-length"}
                ),
            ]
            writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            # It may answer, and close, before it has read all: then its answer counts.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            while not reading.whole:
                part = await reader.read(65_536)
                reading.feed(part)
    except TimeoutError as error:
        raise UpstreamLate(
            f"the service at `{parts.netloc}` did not answer within {seconds:g} s"
        ) from error
    except (OSError, ssl.SSLError, httptools.HttpParserError) as error:
        raise UpstreamFailed(
            f"the service at `{parts.netloc}` cannot be asked: {str(error) or type(error).__name__}"
        ) from error
    finally:
        if writer is not None:
            writer.close()
    return Answered(reading.status, end_to_end(reading.headers), bytes(reading.body))


class _Reading:
    """An answer as it comes in."""

    def __init__(self, method: str, max_bytes: int) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.whole = False
        self._parser = httptools.HttpResponseParser(self)
        self._max_bytes = max_bytes
        self._head = method == "HEAD"
        self._before_body = 0
        self._in_body = False

    def feed(self, part: bytes) -> None:
        if not part:
            # Without a length the end of the connection is the end of the body.
            names = {name.lower() for name, _ in self.headers}
            if self._in_body and not names & {b"content-length", b"transfer-encoding"}:
                self.whole = True
                return
            raise UpstreamFailed("the service broke off in the middle of its answer")
        if not self._in_body:
            self._before_body += len(part)
            if self._before_body > MAX_HEADER_BYTES + 65_536:
                raise UpstreamFailed("the service's headers have no end")
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, UpstreamFailed):
                # Said by one of the callbacks below.
                raise error.__context__ from None
            if not self.whole:
                raise
            # What comes behind an answer that is whole, such as a body of a 204, means nothing.

    def on_status(self, _: bytes) -> None:
        self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            return
        self._in_body = True
        if self._head or self.status in {204, 304}:
            self.whole = True

    def on_body(self, part: bytes) -> None:
        if len(self.body) + len(part) > self._max_bytes:
            raise UpstreamFailed(f"the service's answer has more than {self._max_bytes:,} bytes")
        self.body += part

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.whole = True
