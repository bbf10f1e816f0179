"""A request's body while it arrives, and the presence of its client.

The connection feeds it and the request reads it. At most a few parts are buffered: the connection stops
reading until they are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.http.problem_details import HungUp
from headrace.http.streaming_response import AnswerSender, StreamedAnswer

HIGH_WATER = 65_536
"""Bytes of a body that are buffered before the connection stops reading."""


class RequestBody:
    """One request's body. Fed by its connection, read by the task that answers the request."""

    __slots__ = (
        "_body",
        "_gone",
        "_invite",
        "_parts",
        "_resume",
        "_waiter",
        "more",
        "sender",
        "streamed",
    )

    def __init__(
        self,
        *,
        resume: Callable[[], None],
        invite: Callable[[], None] | None,
        sender: AnswerSender | None = None,
    ) -> None:
        """Create an empty body.

        Args:
            resume: Makes the connection read on.
            invite: Sends `100 Continue` to a client that waits for it; None for any other.
            sender: Sends an answer in parts; without one every answer is sent as a whole.
        """
        self.more = True
        self.sender = sender
        self.streamed: StreamedAnswer | None = None
        self._body = b""
        self._parts: list[bytes] = []
        self._resume = resume
        self._invite = invite
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, part: bytes) -> bool:
        """Append a part; return whether the connection may read on."""
        if self._waiter is not None:
            self._wake()
        # Nearly every body comes in one part, which is then passed on without a copy.
        if not self._body:
            self._body = part
            return len(part) <= HIGH_WATER
        self._parts.append(part)
        return len(self._body) + sum(map(len, self._parts)) <= HIGH_WATER

    def complete(self) -> None:
        """Mark the body as complete."""
        self.more = False
        if self._waiter is not None:
            self._wake()

    def hang_up(self) -> None:
        """Wake the reader: the client is gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def held(self) -> bytes:
        """The buffered bytes, which `take` would return."""
        return self._body + b"".join(self._parts) if self._parts else self._body

    @property
    def awaits_continue(self) -> bool:
        """True while the client waits for `100 Continue` before it sends the body."""
        return self._invite is not None and not self._body

    def take(self) -> bytes:
        """Return the bytes since the last call; all of them for a complete body."""
        body = self._body
        if self._parts:
            body += b"".join(self._parts)
            self._parts.clear()
        self._body = b""
        return body

    async def part(self) -> tuple[bytes, bool]:
        """Return the next part, and whether more follows.

        Raises:
            HungUp: The client went away before its request was complete.
        """
        if self._invite is not None:
            # RFC 9110, section 10.1.1: no 100 after a part of the body has arrived. It is sent
            # only when the body is wanted, so a refused request costs no upload.
            if self.more and not self._body:
                self._invite()
            self._invite = None
        self._resume()
        while self.more and not self._body and not self._gone:
            await self._wait()
        if self._gone and self.more:
            raise HungUp("the client hung up before its request was complete")
        return self.take(), self.more

    async def left(self) -> None:
        """Return once the client is gone; discard what it still sends."""
        while not self._gone:
            # A paused connection does not notice that its client has closed, so it must read on.
            self.take()
            self._resume()
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
