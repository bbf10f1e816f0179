"""One 200-byte message there and back between two processes: blocking, and through uvloop.

The host's end is what differs: `blocking` waits in `recv`; `uvloop` is a protocol on a running loop,
which is the least a host that serves many children can do. The child always blocks.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import uvloop

from bench.figures import arguments, cores, pin, report, spread
from bench.limits.frames import Child, Pipe, fork_child

MESSAGE = b"x" * 200


def echo(pipe: Pipe) -> None:
    """Send back what arrives."""
    while message := pipe.socket.recv(65536):
        pipe.socket.sendall(message)


def blocking(child: Child, rounds: int) -> list[float]:
    """Seconds of each round trip."""
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        child.pipe.socket.sendall(MESSAGE)
        child.pipe.socket.recv(65536)
        samples.append(time.perf_counter() - began)
    return samples


class Turnaround(asyncio.Protocol):
    """Sends the next message as soon as the answer is there."""

    def __init__(self, rounds: int, done: asyncio.Future[list[float]]) -> None:
        self._left = rounds
        self._done = done
        self._samples: list[float] = []
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep the interface without deriving from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        self._samples.append(time.perf_counter() - self._began)
        self._left -= 1
        if self._left:
            self._send()
        else:
            self._done.set_result(self._samples)


async def on_uvloop(child: Child, rounds: int) -> list[float]:
    """Seconds of each round trip with the host's end on the running loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[float]] = loop.create_future()
    child.pipe.socket.setblocking(False)
    transport, _ = await loop.create_connection(
        lambda: Turnaround(rounds, done), sock=child.pipe.socket
    )
    samples = await done
    transport.close()
    return samples


def main() -> None:
    """Measure both ways across cores, and the blocking one on one core."""
    options = arguments(__doc__).parse_args()
    rounds = 500 if options.quick else 10_000
    first, second = cores()
    pin(first)
    figures: dict[str, float] = {}
    for name, core in (("across", second), ("same", first)):
        child = fork_child(echo, core=core)
        figures |= spread(blocking(child, rounds), scale=1e6, prefix=f"blocking_{name}_us_")
        child.close()
    child = fork_child(echo, core=second)
    figures |= spread(uvloop.run(on_uvloop(child, rounds)), scale=1e6, prefix="uvloop_us_")
    child.close()
    report(**figures)


if __name__ == "__main__":
    main()
