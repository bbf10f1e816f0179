"""What stands above a request's body, as it was read; a head that is known is not read again.

Clients repeat themselves: request after request begins with the same bytes. Between two requests
the parser remembers nothing, so the same bytes mean the same head. Only heads are kept whose request
came whole, in one piece, with a body of a fixed length; how many, and how long they may be, is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.http.pipeline.fast_plan import FastPlan

MAX_HEADS = 1_024
MAX_KNOWN_BYTES = 2_048
"""Longer heads are read each time."""
_PASSING = frozenset({b"transfer-encoding", b"expect", b"authorization", b"cookie"})
"""What is of one request, or of one person: heads that have it are not kept."""
_BLANK = (b"", b"\r", b"\n", b" ", b"\t")
END = b"\r\n\r\n"


class RequestHead:
    """A request's head. Shared by all requests that have it: it is never changed.

    Attributes:
        method: In capitals.
        path: As it came, still percent-encoded, without the query.
        raw_query: What stands behind the `?`.
        fields: The headers in their order, names in small letters.
        headers: The same by name; of a repeated one, the last.
        length: Bytes of the body, where the head is kept.
        modern: Whether it is HTTP/1.1, whose answers may come in chunks.
        plan: How the fast path takes it, once that was asked; made again where that may have changed.
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
    """The heads that are known, by their bytes. One per server."""

    def __init__(self, bound: int = MAX_HEADS) -> None:
        self._bound = bound
        self._known: dict[bytes, RequestHead] = {}
        self.find = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, raw: bytes, head: RequestHead, length: int) -> None:
        """Know the head from now on, where there are no two ways to see where it ends.

        Args:
            raw: Its bytes, up to and with the empty line.
            head: What the parser made of them.
            length: How many bytes followed, all of which were its body.
        """
        headers = head.headers
        if (
            not _PASSING.isdisjoint(headers)
            or headers.get(b"content-length", b"0") != b"%d" % length
            or raw[:1] in _BLANK
            or raw.count(b"\n") != raw.count(b"\r\n")
        ):
            return
        if len(self._known) >= self._bound:
            # A client that sends a new one each time must not keep out those that repeat theirs.
            self._known.clear()
        head.length = length
        self._known[raw] = head


def without_upgrade(
    method: bytes, target: bytes, version: str, fields: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """The bytes of a head as they would be, had its client not asked for another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % each for each in fields if each[0] != b"upgrade"]
    return b"\r\n".join(lines) + END
