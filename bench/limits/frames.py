"""The bare pipe between a host and a child: length-prefixed frames over a socketpair.

Shared by the prototypes `pipe` and `road`. A receive buffer of 64 KiB, since larger ones cost more
to allocate than they save; the checksum is taken because a real wire needs one.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

HEAD = struct.Struct("<II")
RECEIVE_BYTES = 1 << 16
BUFFER_BYTES = 4 << 20

EVENT = {
    "id": "0123456789abcdef0123456789abcdef",
    "type": "order.created",
    "source": "shop/eu",
    "subject": "order-12345",
    "time": 1700000000.123456,
    "data": {
        "customer": "c-1029384",
        "amount": 129.95,
        "items": [1, 2, 3],
        "note": "lorem ipsum dolor sit",
    },
}
"""About 200 bytes of msgpack."""


def frame(body: bytes) -> bytes:
    """`body` with its length and checksum in front."""
    return HEAD.pack(len(body), zlib.crc32(body)) + body


@dataclass
class Pipe:
    """One end of the socketpair."""

    socket: socket.socket
    buffer: bytearray = field(default_factory=bytearray)

    def ready(self) -> bytes | None:
        """The next whole frame's body that has already arrived."""
        if len(self.buffer) < HEAD.size:
            return None
        length, _ = HEAD.unpack_from(self.buffer)
        end = HEAD.size + length
        if len(self.buffer) < end:
            return None
        body = bytes(self.buffer[HEAD.size : end])
        del self.buffer[:end]
        return body

    def receive(self) -> bytes:
        """Wait for the next frame.

        Raises:
            EOFError: The other end is gone.
        """
        while (body := self.ready()) is None:
            received = self.socket.recv(RECEIVE_BYTES)
            if not received:
                raise EOFError
            self.buffer += received
        return body

    def send(self, frames: bytes) -> None:
        """Hand over whole frames."""
        self.socket.sendall(frames)


@dataclass
class Child:
    """A forked process that serves its end of the pipe until the parent lets go."""

    pid: int
    pipe: Pipe

    def close(self) -> None:
        """Let it end and collect it."""
        self.pipe.socket.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def fork_child(serve: Callable[[Pipe], None], *, core: int | None) -> Child:
    """Fork a process that runs `serve` on its end; pinned to `core` where one is named."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    pid = os.fork()
    if pid == 0:
        ours.close()
        if core is not None:
            os.sched_setaffinity(0, {core})
        try:
            serve(Pipe(theirs))
        except (EOFError, OSError):
            pass
        finally:
            os._exit(0)
    theirs.close()
    return Child(pid, Pipe(ours))
