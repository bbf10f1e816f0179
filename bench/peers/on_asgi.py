"""Bare ASGI under uvicorn: an answer without a function, a route or a body that is read.

Pinned to one core, as a host is that has another for its functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bench.peers.uvicorn_server import serve_or_shoot

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
    serve_or_shoot("bench.peers.on_asgi", __doc__, app, lifespan="off")


if __name__ == "__main__":
    main()
