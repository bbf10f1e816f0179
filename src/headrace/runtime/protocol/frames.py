"""Frames between the host and its child processes: bytes in, bodies out. Pure.

A frame is a 16-byte head (body length, CRC-32, nonce) and a body. Bytes from a child are hostile
until proven otherwise: a length beyond the limit and a wrong checksum come out as a
`ProtocolError` value, after which the channel is to be closed and the child killed. Whether a
nonce is one that was asked for is checked by the caller. No descriptor is read here.
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
"""How much of a nonce the checksum is seeded with."""


class ProtocolError(msgspec.Struct, frozen=True):
    """The other side broke the protocol; nothing after this point can be trusted."""

    reason: str


class Frames:
    """Cuts received bytes into frames; owned by one reader, bounded by one frame and one receive."""

    def __init__(self, *, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._broken: ProtocolError | None = None

    @property
    def waiting(self) -> int:
        """Return the number of buffered bytes of an unfinished frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[tuple[int, bytes]] | ProtocolError:
        """Take bytes in; nonce and body of every frame they complete, in order.

        Once broken it stays broken: there is no way to find the next frame in garbage.
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
            data = bytes(rest)
            rest.clear()
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= HEAD_BYTES:
            size, checksum, nonce = HEAD.unpack_from(data, at)
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
