"""Bare ASGI under uvicorn: an answer without a function, a route or a body that is read.

Pinned to one core, as a host is that has another for its functions.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn

from bench.figures import arguments, cores, pin, report
from bench.wrk import free_port, need_wrk, serve_and_shoot

Message = MutableMapping[str, Any]
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
}
_BODY = {"type": "http.response.body", "body": b"hello"}


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Say hello."""
    del scope, receive
    await send(_START)
    await send(_BODY)


def main() -> None:
    """Serve in a process of its own, and shoot."""
    parser = arguments(__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    options = parser.parse_args()
    if options.serve:
        pin(cores()[1])
        uvicorn.run(app, port=options.serve, lifespan="off", log_level="critical", access_log=False)
        return
    need_wrk()
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.on_asgi", "--serve", str(port)]
        report(**serve_and_shoot(command, port, Path(name), quick=options.quick))


if __name__ == "__main__":
    main()
