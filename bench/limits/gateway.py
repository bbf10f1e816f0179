"""The smallest gateway to an isolated worker: HTTP in, one process further a handler, HTTP out.

Parser and loop are the fastest there are for Python (httptools, uvloop), and requests of one turn of
the loop share a message. It has no routes, checks nothing, keeps nothing, and its worker is never
replaced. The better of "worker on the gateway's core" and "on the other" counts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import httptools
import msgspec
import uvloop

from bench.figures import arguments, cores, pin, report
from bench.wrk import free_port, need_wrk, serve_and_shoot

RECEIVE_BYTES = 1 << 16
_length = struct.Struct("<I")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode


def frames_of(buffer: bytearray) -> list[bytes]:
    """Take every whole frame out of the buffer."""
    found = []
    while len(buffer) >= _length.size:
        end = _length.size + _length.unpack_from(buffer)[0]
        if len(buffer) < end:
            break
        found.append(bytes(buffer[_length.size : end]))
        del buffer[:end]
    return found


def framed(body: bytes) -> bytes:
    """`body` with its length in front."""
    return _length.pack(len(body)) + body


def handle(event: Any) -> Any:
    """What a user would write."""
    return event


def work(end: socket.socket) -> None:
    """The worker: decode, call, encode, until the gateway goes."""
    buffer = bytearray()
    while data := end.recv(RECEIVE_BYTES):
        buffer += data
        answers = bytearray()
        for body in frames_of(buffer):
            done = [
                (number, msgspec.json.encode(handle(msgspec.json.decode(event))))
                for number, event in _unpack(body)
            ]
            answers += framed(_pack(done))
        end.sendall(answers)


class Worker(asyncio.Protocol):
    """The gateway's end of the pipe; requests of one turn leave together."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._asking: dict[int, asyncio.Transport] = {}
        self._queue: list[tuple[int, bytes]] = []
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def ask(self, client: asyncio.Transport, body: bytes) -> None:
        """Hand a request over."""
        self._count += 1
        self._asking[self._count] = client
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append((self._count, body))

    def _flush(self) -> None:
        self._transport.write(framed(_pack(self._queue)))
        self._queue = []

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for body in frames_of(self._buffer):
            for number, answer in _unpack(body):
                client = self._asking.pop(number)
                if client.is_closing():
                    continue
                client.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
                )


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._worker.ask(self._transport, self._body)
        self._body = b""


async def serve(end: socket.socket, port: int) -> None:
    """Listen until killed."""
    loop = asyncio.get_running_loop()
    end.setblocking(False)
    _, worker = await loop.create_connection(Worker, sock=end)
    server = await loop.create_server(lambda: Client(worker), "127.0.0.1", port)
    await server.serve_forever()


def be_the_gateway(port: int, worker_core: int) -> None:
    """Fork the worker, then serve; ends when killed, and the worker with it."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        pin(worker_core)
        work(theirs)
        os._exit(0)
    theirs.close()
    pin(cores()[1])
    uvloop.run(serve(ours, port))


def main() -> None:
    """Measure both places of the worker."""
    parser = arguments(__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the gateway")
    parser.add_argument("--worker-core", type=int, default=0)
    options = parser.parse_args()
    if options.serve:
        be_the_gateway(options.serve, options.worker_core)
        return
    need_wrk()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for core in dict.fromkeys(cores()):
            port = free_port()
            told = serve_and_shoot(
                [
                    sys.executable,
                    "-m",
                    "bench.limits.gateway",
                    "--serve",
                    str(port),
                    "--worker-core",
                    str(core),
                ],
                port,
                Path(name),
                quick=options.quick,
            )
            for figure, value in told.items():
                better = max if "per_s" in figure else min
                figures[figure] = better(figures.get(figure, value), value)
    report(**figures)


if __name__ == "__main__":
    main()
