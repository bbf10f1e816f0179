"""Frames between the host and its child processes: bytes in, bodies out. Pure.

A frame is a 16-byte head (body length, CRC-32, nonce) and a body. Bytes from a child are untrusted:
a length beyond the limit and a wrong checksum return a `ProtocolError` value, after which the
caller closes the channel and kills the child. The caller checks nonces.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from headrace.model.policy import MAX_FRAME_BYTES

RECEIVE_BYTES = 1 << 16
HEAD = struct.Struct("<IIQ")
HEAD_BYTES = HEAD.size
MASK = 0xFFFF_FFFF
"""The part of a nonce that seeds the checksum: a frame of another run then has a wrong checksum."""


class ProtocolError(msgspec.Struct, frozen=True):
    """The other side broke the protocol; nothing after this point can be trusted."""

    reason: str


class Frames:
    """Splits received bytes into frames; owned by one reader, bounded by one frame and one receive."""

    def __init__(self, *, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._broken: ProtocolError | None = None

    @property
    def waiting(self) -> int:
        """Return the number of buffered bytes of an unfinished frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[tuple[int, bytes]] | ProtocolError:
        """Take bytes; return nonce and body of every frame they complete, in order.

        After an error every call returns that error: the start of the next frame cannot be found.
        """
        if self._broken is not None:
            return self._broken
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < HEAD_BYTES:
                return []
            size = HEAD.unpack_from(rest)[0]
            if size <= self._limit and len(rest) < HEAD_BYTES + size:
                return []
            # One copy, and only once the frame is complete: copying at every receive would be
            # quadratic in a large frame.
            data = bytes(rest)
            rest.clear()
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= HEAD_BYTES:
            size, checksum, nonce = HEAD.unpack_from(data, at)
            # Before the body is awaited: a child must not make the host buffer a gigabyte.
            if size > self._limit:
                return self._break(
                    f"a frame of {size} bytes was announced; {self._limit} is the limit"
                )
            start = at + HEAD_BYTES
            if end - start < size:
                break
            body = data[start : start + size]
            if zlib.crc32(body, nonce & MASK) != checksum:
                return self._break("a frame's checksum does not match its bytes")
            frames.append((nonce, body))
            at = start + size
        if at < end:
            rest += data[at:] if at else data
        return frames

    def _break(self, reason: str) -> ProtocolError:
        self._rest.clear()
        self._broken = ProtocolError(reason)
        return self._broken
