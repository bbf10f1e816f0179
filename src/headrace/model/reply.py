"""An HTTP answer as a value on its way from the function to the door.

A function's answer is JSON; one that sets a status or headers is marked by a first byte that no
JSON begins with, so that what a function merely passes on can never pose as one.
"""

from __future__ import annotations

import msgspec

from headrace.model.errors import Corrupt

_MARK = b"\x00"


class WireReply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A status, headers (names in small letters), and the body as bytes."""

    status: int
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
        raise Corrupt(f"a function's answer is no reply: {error}") from error
