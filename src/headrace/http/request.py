"""HTTP -> values: one request's path, query, headers and body, each read with a bound.

The body comes in whole or not at all, within the HTTP server's byte budget; its deadline is kept by
`protocol`. Query texts become numbers here, with an error that names the parameter.
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
from headrace.model.sizes import MAX_SIZE, bytes_in
from headrace.security.access import Peer

MAX_QUERY_PARAMETERS = 100
_DRAIN_FACTOR = 4


class Incoming(Protocol):
    """A body on its way in."""

    more: bool
    sender: AnswerSender | None
    streamed: StreamedAnswer | None

    @property
    def holds_back(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends it."""
        ...

    def take(self) -> bytes:
        """What has come since the last time; for a body that is whole, all of it."""
        ...

    async def part(self) -> tuple[bytes, bool]:
        """The next part, and whether more follows.

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
        path: As it came, still percent-encoded, without the query.
        raw_query: What stands behind the `?`.
        fields: The headers in their order, names in small letters.
        headers: The same by name; of a repeated one, the last (`header` has all of it).
        peer: Who holds the other end of the connection.
        reserved: Bytes taken out of the server's budget.
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
        """The address of who asks; "" where it has none."""
        return self.peer.address

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one, the last."""
        if self._query is None:
            self._query = dict(self.query_pairs())
        return self._query

    def query_pairs(self) -> list[tuple[str, str]]:
        """The query's parameters in their order, each as often as it was given.

        Raises:
            Invalid: It cannot be read.
        """
        if not self.raw_query:
            return []
        try:
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
        """A header's text; one that came several times is as if it had come once (RFC 9110, 5.3).

        Raises:
            Invalid: It is not UTF-8.
        """
        wanted = name.encode()
        raw = self.headers.get(wanted)
        if raw is None:
            return None
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
        """A whole number out of the query.

        Raises:
            Invalid: It is none, or out of range.
        """
        text = self.query.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text[:19]) <= high:
            raise Invalid(f"`{name}={text}` is out of range; use a number from {low} to {high}")
        return int(text)

    def seconds(self, name: str, default: float | None, *, high: float) -> float | None:
        """A duration out of the query, in seconds.

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
        """The whole body.

        Args:
            most: Bytes at most, where the route takes less than the server.
            packed: Whether the reader unpacks it; else a packed body is refused.

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
        # What is here whole is measured below.
        if incoming.more and length.isdigit() and int(length) > limit:
            if not incoming.holds_back:
                await self._drain(int(length))
            raise too_large(int(length), limit)
        part, more = (await incoming.part()) if incoming.more else (incoming.take(), False)
        self.reserve(len(part))
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
        """Where an answer goes part by part; None where its client could not see its end.

        Args:
            extra: Headers of the route's own.
        """
        sender = self._incoming.sender
        if self.method == "HEAD" or sender is None:
            return None
        streamed = self._incoming.streamed = StreamedAnswer(
            sender, self.header("accept") or "", extra
        )
        return streamed

    async def wait_left(self) -> None:
        """Return once the client has hung up; for requests whose body is not read."""
        await self._incoming.left()

    async def json(self, kind: Any) -> Any:
        """The body as a value of the given type; an empty body counts as `{}`.

        Raises:
            Invalid: It is not.
        """
        raw = await self.body() or b"{}"
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Misuse) as error:
            raise Invalid(f"the body cannot be read: {error}") from error

    def reserve(self, size: int) -> None:
        """Take bytes out of the HTTP server's budget until the request is answered.

        Raises:
            Overloaded: The bodies of all requests together are too large.
        """
        self._admission.reserve(size)
        self.reserved += size

    async def _drain(self, length: int) -> None:
        # A client that is still sending does not read an answer: let it finish, within reason,
        # and keep nothing of it.
        left = min(length, self._admission.max_body_bytes * _DRAIN_FACTOR)
        more = self._incoming.more
        while left > 0 and more:
            part, more = await self._incoming.part()
            left -= len(part)


def wants_page(request: IncomingRequest) -> bool:
    """Whether it is a browser that goes to an address, and not a program."""
    return request.method in {"GET", "HEAD"} and "text/html" in (request.header("accept") or "")


def refuse_encoding(headers: Mapping[bytes, bytes]) -> None:
    """Pass, where the body is not packed.

    Raises:
        Unsupported: It is.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise Unsupported(
            f"the body is encoded as `{encoding.decode('latin-1')}`, which this server does not read; "
            "send it as it is"
        )


def joint(name: bytes) -> bytes:
    """What stands between the values of a header that came several times."""
    return b"; " if name == b"cookie" else b", "


def too_large(size: int | str, limit: int) -> TooLarge:
    """The error for a body of `size` bytes where `limit` are taken."""
    shown = size if isinstance(size, str) else f"{size:,}"
    return TooLarge(
        f"the body has {shown} bytes, and {limit:,} are taken here; send several smaller requests, or "
        "raise `max_body_bytes` of the node or `max_bytes` of the route"
    )
