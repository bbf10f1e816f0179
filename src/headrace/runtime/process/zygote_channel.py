"""The host's end of a zygote's control socket: sends requests with descriptors, receives reports with pidfds.

Requests are buffered in order while the zygote is slow, with copies of their descriptors. A closed
socket and an invalid message end the zygote.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from headrace.runtime.protocol.frames import RECEIVE_BYTES, Frames, ProtocolError
from headrace.runtime.protocol.messages import (
    Fork,
    FromZygote,
    Load,
    Provided,
    encode,
    from_zygote,
)

MAX_DESCRIPTORS = 64
"""Descriptors that one read may bring."""


class ZygoteChannel:
    """A control socket, owned by its `Zygote`."""

    def __init__(
        self,
        link: socket.socket,
        *,
        on_message: Callable[[FromZygote], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._link = link
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._writing = False
        self._descriptors: list[int] = []
        link.setblocking(False)
        self._loop.add_reader(link, self._receive)

    def close(self) -> None:
        """Close the socket and every descriptor that was not taken or not sent."""
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()
        _close(self._descriptors)
        self._descriptors.clear()
        for _, descriptors in self._outbox:
            _close(descriptors)
        self._outbox.clear()

    def send(self, message: Load | Provided | Fork, descriptors: list[int]) -> None:
        """Send a request; the caller keeps the descriptors."""
        frame = encode(0, message)
        if not self._outbox:
            rest = self._try_send(frame, descriptors)
            if rest is None:
                return
            frame, descriptors = rest
        # Duplicated, since the caller closes its descriptors as soon as this returns.
        self._outbox.append((frame, [os.dup(descriptor) for descriptor in descriptors]))
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._link, self._drain)

    def take_descriptor(self) -> int | None:
        """Return the oldest received descriptor, which the caller then owns; None if there is none."""
        return self._descriptors.pop(0) if self._descriptors else None

    def _try_send(self, frame: bytes, descriptors: list[int]) -> tuple[bytes, list[int]] | None:
        try:
            if descriptors:
                sent = socket.send_fds(self._link, [frame], descriptors)
            else:
                sent = self._link.send(frame)
        except BlockingIOError:
            return frame, descriptors
        except OSError as error:
            # Not called directly: the sender is in the middle of its own change and does not
            # expect the zygote's end.
            self._loop.call_soon(self._on_end, str(error))
            return None
        # The descriptors went with the first byte: sending them again would duplicate them.
        return (frame[sent:], []) if sent < len(frame) else None

    def _drain(self) -> None:
        while self._outbox:
            frame, descriptors = self._outbox[0]
            rest = self._try_send(frame, descriptors)
            if rest is not None:
                if not rest[1]:
                    _close(descriptors)
                self._outbox[0] = rest
                return
            _close(descriptors)
            if self._outbox:
                self._outbox.popleft()
        self._writing = False
        self._loop.remove_writer(self._link)

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._link, RECEIVE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            self._on_end(str(error))
            return
        if not data:
            self._on_end("it closed its control socket")
            return
        self._descriptors += descriptors
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            self._on_end(frames.reason)
            return
        for _, body in frames:
            message = from_zygote(body)
            if isinstance(message, ProtocolError):
                self._on_end(message.reason)
                return
            try:
                self._on_message(message)
            except Exception as error:  # noqa: BLE001 - a lost report would leave an instance unreaped
                self._on_end(f"what it reported could not be followed: {error!r}")
                return


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
