"""A request's body on its way in, and whether its client is still there.

The connection feeds it, the request reads it; in between at most a few parts are kept, since the
connection reads no further until they are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.http.problem_details import HungUp
from headrace.http.streaming_response import AnswerSender, StreamedAnswer

HIGH_WATER = 65_536
"""Bytes of a body kept for a reader that does not come; then the connection stops reading."""


class RequestBody:
    """One request's body. Fed by its connection, read by the task that answers the request."""

    __slots__ = (
        "_body",
        "_go_on",
        "_gone",
        "_invite",
        "_parts",
        "_waiter",
        "more",
        "sender",
        "streamed",
    )

    def __init__(
        self,
        *,
        go_on: Callable[[], None],
        invite: Callable[[], None] | None,
        sender: AnswerSender | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            go_on: Lets the connection read further.
            invite: Asks the client for the body (`100 Continue`), where it waits for that.
            sender: Where an answer in parts goes; without one every answer goes as a whole.
        """
        self.more = True
        self.sender = sender
        self.streamed: StreamedAnswer | None = None
        self._body = b""
        self._parts: list[bytes] = []
        self._go_on = go_on
        self._invite = invite
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, part: bytes) -> bool:
        """Keep a part; whether more may come at once."""
        if self._waiter is not None:
            self._wake()
        if not self._body:
            self._body = part
            return len(part) <= HIGH_WATER
        self._parts.append(part)
        return len(self._body) + sum(map(len, self._parts)) <= HIGH_WATER

    def complete(self) -> None:
        """It is whole."""
        self.more = False
        if self._waiter is not None:
            self._wake()

    def hang_up(self) -> None:
        """Its client is gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def held(self) -> bytes:
        """What `take` would give."""
        return self._body + b"".join(self._parts) if self._parts else self._body

    @property
    def holds_back(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self._invite is not None and not self._body

    def take(self) -> bytes:
        """What has come since the last time; for a body that is whole, all of it."""
        body = self._body
        if self._parts:
            body += b"".join(self._parts)
            self._parts.clear()
        self._body = b""
        return body

    async def part(self) -> tuple[bytes, bool]:
        """The next part, and whether more follows.

        Raises:
            HungUp: The client went away before its request was complete.
        """
        if self._invite is not None:
            if self.more and not self._body:
                self._invite()
            self._invite = None
        self._go_on()
        while self.more and not self._body and not self._gone:
            await self._wait()
        if self._gone and self.more:
            raise HungUp("the client hung up before its request was complete")
        return self.take(), self.more

    async def left(self) -> None:
        """Return once the client is gone; whatever it still sends is thrown away."""
        while not self._gone:
            self.take()
            self._go_on()
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
