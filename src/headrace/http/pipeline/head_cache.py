"""Parsed heads of requests by their bytes; a known head is not parsed again.

Clients send the same head again and again. Between two requests the parser keeps no state, so the same
bytes always mean the same head. A head is kept only if its request arrived in one piece with a body of
a fixed length. The number of heads and their length are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.http.pipeline.fast_plan import FastPlan

MAX_HEADS = 1_024
MAX_KNOWN_BYTES = 2_048
"""Longer heads are parsed each time."""
_PASSING = frozenset({b"transfer-encoding", b"expect", b"authorization", b"cookie"})
"""Headers of one request or one person: heads with them are not kept, so that no secret stays in memory."""
_BLANK = (b"", b"\r", b"\n", b" ", b"\t")
END = b"\r\n\r\n"


class RequestHead:
    """A request's head. Shared by all requests that have it; only `plan` changes.

    Attributes:
        method: In capitals.
        path: Percent-encoded, without the query.
        raw_query: The bytes after the `?`.
        fields: The headers in their order, names in lower case.
        headers: The headers by name; of a repeated one, the last.
        length: Bytes of the body, where the head is kept.
        modern: Whether it is HTTP/1.1, whose answers may have chunks.
        plan: The fast path's plan, None until it is needed; replaced where peer or apps have changed.
    """

    __slots__ = ("fields", "headers", "length", "method", "modern", "path", "plan", "raw_query")

    def __init__(
        self,
        method: str,
        path: str,
        raw_query: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        headers: Mapping[bytes, bytes],
        *,
        modern: bool = True,
    ) -> None:
        self.method = method
        self.path = path
        self.raw_query = raw_query
        self.fields = fields
        self.headers = headers
        self.modern = modern
        self.length = 0
        self.plan: FastPlan | None = None


class HeadCache:
    """Known heads by their bytes. One per server."""

    def __init__(self, bound: int = MAX_HEADS) -> None:
        self._bound = bound
        self._known: dict[bytes, RequestHead] = {}
        self.find = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, raw: bytes, head: RequestHead, length: int) -> None:
        """Keep the head, where its end is beyond dispute.

        Args:
            raw: Its bytes, including the empty line.
            head: The head that the parser made of them.
            length: The number of bytes that followed, all of which were its body.
        """
        # The next request with these bytes is framed by `length` alone. Each condition excludes a
        # head that the parser may frame in another way (request smuggling, RFC 9112, section
        # 11.2).
        headers = head.headers
        if (
            not _PASSING.isdisjoint(headers)
            or headers.get(b"content-length", b"0") != b"%d" % length
            # The parser skips blank lines before a request (RFC 9112, section 2.2), and accepts a
            # bare LF as a line's end.
            or raw[:1] in _BLANK
            or raw.count(b"\n") != raw.count(b"\r\n")
        ):
            return
        if len(self._known) >= self._bound:
            # Cleared rather than closed: a client that sends a new head each time must not keep out
            # those that repeat theirs. A recency list would cost every hit.
            self._known.clear()
        head.length = length
        self._known[raw] = head


def without_upgrade(
    method: bytes, target: bytes, version: str, fields: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Return the bytes of a head without its `Upgrade` header."""
    # Written from the parsed parts, not cut out of the received bytes: the head may have come in
    # many pieces.
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % each for each in fields if each[0] != b"upgrade"]
    return b"\r\n".join(lines) + END
