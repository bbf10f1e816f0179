"""An HTTP answer as a value on its way from the function to the HTTP server.

A function's answer is JSON; one that sets a status or headers is marked by a first byte that no
JSON begins with, so that what a function merely passes on can never pose as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from headrace.model.errors import Corrupt

_MARK = b"\x00"
_JSON: Final = "application/json"


class WireReply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A status, headers (names in small letters), and the body as bytes."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    headers: dict[str, str]
    media: str
    body: bytes


_decoder = msgspec.msgpack.Decoder(WireReply)


def pack_reply(reply: WireReply) -> bytes:
    """The answer, marked."""
    return _MARK + msgspec.msgpack.encode(reply)


def open_reply(answer: bytes) -> WireReply | None:
    """The reply an answer holds; None where it is plain JSON.

    Raises:
        Corrupt: It is marked, but no reply.
    """
    if not answer.startswith(_MARK):
        return None
    try:
        return _decoder.decode(answer[1:])
    except msgspec.DecodeError as error:
        raise Corrupt(f"a function's answer is not a reply: {error}") from error


def is_raw(head: WireReply | None) -> bool:
    """Return whether the parts behind this head are bytes to be sent as they are, and not JSON values."""
    return head is not None and head.media != _JSON


def joined(head: WireReply | None, parts: Sequence[bytes]) -> bytes:
    """The answer that parts make together: a list of their values, or raw bytes one by one."""
    whole = b"".join(parts) if is_raw(head) else b"[" + b",".join(parts) + b"]"
    if head is None:
        return whole
    return pack_reply(WireReply(head.status, head.headers, head.media, whole))
