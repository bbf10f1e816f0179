"""Connections to a node's door as a client that counts every byte holds them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from tests.integration.faults.sites import Site


class Answer(NamedTuple):
    """What a request was answered; status 0 where the connection ended without a word."""

    status: int
    body: bytes = b""


NOTHING = Answer(0)


def address(site: Site) -> tuple[str, int]:
    """Where the node on the site listens."""
    url: str = json.loads((site.data / "node.json").read_bytes())["url"]
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    """A whole request."""
    lines = [
        b"POST " + path.encode() + b" HTTP/1.1",
        b"host: localhost",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def connected(
    where: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed whatever happens."""
    reader, writer = await asyncio.open_connection(*where)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answered(reader: asyncio.StreamReader, seconds: float = 20.0) -> Answer:
    """The next answer on a connection."""
    try:
        async with asyncio.timeout(seconds):
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            return Answer(int(head.split(b" ", 2)[1]), await reader.readexactly(size))
    except (OSError, EOFError, TimeoutError):
        return NOTHING


async def once(
    where: tuple[str, int], *parts: bytes, pause: float = 0.0, seconds: float = 20.0
) -> Answer:
    """The answer to what is sent over a fresh connection, part by part, while there is none."""
    try:
        async with connected(where) as (reader, writer):
            waiting = asyncio.ensure_future(answered(reader, seconds))
            with contextlib.suppress(OSError):
                for part in parts:
                    if waiting.done():
                        break
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause)
            return await waiting
    except OSError:
        return NOTHING


async def together(count: int, act: Callable[[int], Awaitable[Answer]]) -> list[Answer]:
    """So many at once."""
    return list(await asyncio.gather(*(act(number) for number in range(count))))
