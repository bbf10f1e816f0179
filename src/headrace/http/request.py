"""HTTP -> values: one request's path, query, headers and body, each read with a bound.

The body is read completely or not at all, within the HTTP server's byte budget; `server/http1` enforces its
deadline. Texts of the query become numbers here, with an error that names the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from headrace.http.admission import Admission
from headrace.http.cors import Headers
from headrace.http.problem_details import Unsupported
from headrace.http.streaming_response import AnswerSender, StreamedAnswer
from headrace.model.durations import seconds_in
from headrace.model.errors import Invalid, Misuse, TooLarge
from headrace.model.numeric_text import whole
from headrace.model.sizes import MAX_SIZE, bytes_in
from headrace.security.access import Peer

MAX_QUERY_PARAMETERS = 100
_DRAIN_FACTOR = 4
"""A body that is too large is read on for so many times the limit, so that its client can read the answer."""


class Incoming(Protocol):
    """A body that is being received."""

    more: bool
    sender: AnswerSender | None
    streamed: StreamedAnswer | None

    @property
    def awaits_continue(self) -> bool:
        """True while the client waits for `100 Continue` before it sends the body."""
        ...

    def take(self) -> bytes:
        """Return the bytes since the last call; all of them for a complete body."""
        ...

    async def part(self) -> tuple[bytes, bool]:
        """Return the next part, and whether more follows.

        Raises:
            HungUp: The client went away before its request was complete.
        """
        ...

    async def left(self) -> None:
        """Return once the client is gone."""
        ...


class IncomingRequest:
    """One request. Owned by the task that answers it; `body` may be awaited once.

    Attributes:
        method: In capitals.
        path: Percent-encoded, without the query.
        raw_query: The bytes after the `?`.
        fields: The headers in their order, names in lower case.
        headers: The headers by name; of a repeated one, the last (`header` returns all).
        peer: The peer of the connection.
        reserved: Bytes reserved in the server's budget.
    """

    __slots__ = (
        "_admission",
        "_incoming",
        "_query",
        "fields",
        "headers",
        "method",
        "path",
        "peer",
        "raw_query",
        "reserved",
    )

    def __init__(
        self,
        method: str,
        path: str,
        raw_query: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        headers: Mapping[bytes, bytes],
        peer: Peer,
        incoming: Incoming,
        admission: Admission,
    ) -> None:
        self.method = method
        self.path = path
        self.raw_query = raw_query
        self.fields = fields
        self.headers = headers
        self.peer = peer
        self.reserved = 0
        self._query: dict[str, str] | None = None
        self._incoming = incoming
        self._admission = admission

    @property
    def client(self) -> str:
        """The client's address; "" where it has none."""
        return self.peer.address

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one, the last."""
        if self._query is None:
            self._query = dict(self.query_pairs())
        return self._query

    def query_pairs(self) -> list[tuple[str, str]]:
        """Return the query's parameters in their order, repeated ones included.

        Raises:
            Invalid: The query cannot be decoded.
        """
        if not self.raw_query:
            return []
        try:
            # Blank values are kept: an empty key is a key, and `?flag=` is not a missing
            # parameter.
            return parse_qsl(
                self.raw_query.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MAX_QUERY_PARAMETERS,
            )
        except ValueError as error:
            raise Invalid(
                f"the query cannot be read: {error}; percent-encode UTF-8 text"
            ) from error

    def header(self, name: str) -> str | None:
        """Return a header's text; the values of a repeated one are joined.

        Raises:
            Invalid: It is not UTF-8.
        """
        wanted = name.encode()
        raw = self.headers.get(wanted)
        if raw is None:
            return None
        # RFC 9110, section 5.3: several lines of one name mean the same as one line with a list.
        # The table by name has only the last of them.
        if len(self.fields) != len(self.headers):
            raw = joint(wanted).join(value for field, value in self.fields if field == wanted)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"the header `{name}` is not UTF-8 text") from error

    @property
    def media(self) -> str:
        """The body's media type without parameters, in lower case."""
        raw = self.headers.get(b"content-type", b"")
        return raw.split(b";", 1)[0].strip().lower().decode("latin-1")

    def number(self, name: str, default: int, *, low: int = 0, high: int) -> int:
        """Return a whole number of the query.

        Raises:
            Invalid: It is not a whole number, or out of range.
        """
        text = self.query.get(name)
        if text is None:
            return default
        value = whole(text)
        if value is None or not low <= value <= high:
            raise Invalid(f"`{name}={text:.80}` is out of range; use a number from {low} to {high}")
        return value

    def seconds(self, name: str, default: float | None, *, high: float) -> float | None:
        """Return a duration of the query, in seconds.

        Raises:
            Invalid: It is not a duration, or longer than `high`.
        """
        text = self.query.get(name)
        if text is None:
            return default
        try:
            return seconds_in(text, f"`{name}`", low=0, high=high)
        except Misuse as error:
            raise Invalid(f"{error}") from error

    def size(self, name: str, default: int) -> int:
        """A size out of the query, in bytes.

        Raises:
            Invalid: It is not a size.
        """
        text = self.query.get(name)
        if text is None:
            return default
        try:
            return bytes_in(text, f"`{name}`", low=0, high=MAX_SIZE)
        except Misuse as error:
            raise Invalid(f"{error}") from error

    async def body(self, most: int | None = None, *, packed: bool = False) -> bytes:
        """Return the whole body.

        Args:
            most: The route's limit in bytes, where it is below the server's.
            packed: Whether the caller decompresses it; else a compressed body is refused.

        Raises:
            TooLarge: It is larger than the server allows.
            Overloaded: The bodies of all requests together are.
            Unsupported: It is compressed.
            HungUp: The client went away.
        """
        if not packed:
            refuse_encoding(self.headers)
        limit = self._admission.max_body_bytes
        if most is not None and most < limit:
            limit = most
        incoming = self._incoming
        length = self.headers.get(b"content-length", b"")
        # Refused by its announced length, before a byte of it is stored; a complete body is measured
        # below.
        if incoming.more and length.isdigit() and int(length) > limit:
            if not incoming.awaits_continue:
                await self._drain(int(length))
            raise too_large(int(length), limit)
        part, more = (await incoming.part()) if incoming.more else (incoming.take(), False)
        self.reserve(len(part))
        # The usual case, without a copy of the body.
        if not more:
            if len(part) > limit:
                raise too_large(len(part), limit)
            return part
        parts = bytearray(part)
        while more:
            part, more = await incoming.part()
            if len(parts) + len(part) > limit:
                await self._drain(limit * _DRAIN_FACTOR)
                raise too_large(f"more than {limit:,}", limit)
            self.reserve(len(part))
            parts += part
        return bytes(parts)

    def streamed_answer(self, extra: Headers) -> StreamedAnswer | None:
        """Start an answer in parts; None where the client could not see its end.

        Args:
            extra: Headers to add to the answer.
        """
        sender = self._incoming.sender
        if self.method == "HEAD" or sender is None:
            return None
        streamed = self._incoming.streamed = StreamedAnswer(
            sender, self.header("accept") or "", extra
        )
        return streamed

    async def wait_left(self) -> None:
        """Return once the client is gone; for requests whose body is not read."""
        await self._incoming.left()

    async def json(self, kind: Any) -> Any:
        """Decode the body as a value of the given type; an empty body counts as `{}`.

        Raises:
            Invalid: It is not of that type.
        """
        raw = await self.body() or b"{}"
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Misuse) as error:
            raise Invalid(f"the body cannot be read: {error}") from error

    def reserve(self, size: int) -> None:
        """Reserve bytes of the HTTP server's budget until the request is answered.

        Raises:
            Overloaded: The bodies of all requests together are too large.
        """
        self._admission.reserve(size)
        self.reserved += size

    async def _drain(self, length: int) -> None:
        # Many clients read no answer before they have sent their body, and closing the connection
        # then makes the kernel discard the answer (RFC 9112, section 9.6). So the rest is read,
        # within a bound, and dropped.
        left = min(length, self._admission.max_body_bytes * _DRAIN_FACTOR)
        more = self._incoming.more
        while left > 0 and more:
            part, more = await self._incoming.part()
            left -= len(part)


def wants_page(request: IncomingRequest) -> bool:
    """Return whether the client is a browser that opens a page, and not a program."""
    return request.method in {"GET", "HEAD"} and "text/html" in (request.header("accept") or "")


def refuse_encoding(headers: Mapping[bytes, bytes]) -> None:
    """Pass a body that is not compressed.

    Raises:
        Unsupported: It is compressed.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise Unsupported(
            f"the body is encoded as `{encoding.decode('latin-1')}`, which this server does not read; "
            "send it as it is"
        )


def joint(name: bytes) -> bytes:
    """Return the separator between the values of a repeated header."""
    # RFC 6265, section 4.2.1, separates cookies by `; `. HTTP/2 proxies split them into several
    # lines (RFC 9113, section 8.2.3).
    return b"; " if name == b"cookie" else b", "


def too_large(size: int | str, limit: int) -> TooLarge:
    """Return the error for a body of `size` bytes where `limit` are accepted."""
    shown = size if isinstance(size, str) else f"{size:,}"
    return TooLarge(
        f"the body has {shown} bytes, and {limit:,} are taken here; send several smaller requests, or "
        "raise `max_body_bytes` of the node or `max_bytes` of the route"
    )
