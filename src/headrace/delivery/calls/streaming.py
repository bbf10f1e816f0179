"""Answers that are sent while their call still runs: who waits for the parts of which call.

In: a call's token and a listener, then the parts as the instance hands them over. Out: to the
listener, one after the other, each only when it has room. Parts of a call that nobody waits for
(any more) are refused: what an instance says late reaches nobody.
"""

from __future__ import annotations

from typing import Protocol

from headrace.model.errors import Fenced, Misuse, TooLarge
from headrace.model.policy import MAX_EVENT_BYTES
from headrace.model.reply import WireReply, joined

MAX_REMEMBERED_BYTES = MAX_EVENT_BYTES
"""The longest answer in parts that is kept for a repeated idempotency key."""


class Listener(Protocol):
    """Takes an answer's parts, on its way out."""

    async def take(self, body: bytes, head: WireReply | None) -> None:
        """Send a part on; returns when there is room for the next. `head` comes first or never."""
        ...


class Judge(Protocol):
    """Holds an answer against what is declared."""

    def __call__(self, answered: bytes) -> str:
        """What is wrong with the whole answer; "" where nothing is."""
        ...

    def part(self, status: int, body: bytes | None) -> str:
        """What is wrong with one of its parts; None where so far only the status is known."""
        ...


class LiveAnswer:
    """One call's answer in parts. Made by `direct` for one attempt.

    Attributes:
        wrong: What was wrong with the part that the route does not declare; "" where there was none.
        begun: Whether the listener has been given something, which nobody can take back.
    """

    def __init__(self, listener: Listener, *, remembered: bool, judge: Judge | None = None) -> None:
        """Begin with nothing.

        Args:
            listener: Who waits.
            remembered: Whether the answer will be asked for again, and so is kept beside.
            judge: Holds each part against what is declared, before it is sent.
        """
        self.begun = False
        self.wrong = ""
        self._judge = judge
        self._status = 200
        self._listener = listener
        self._remembered = remembered
        self._head: WireReply | None = None
        self._kept: list[bytes] = []
        self._size = 0

    async def take(self, body: bytes, head: WireReply | None) -> None:
        """Send a part on.

        Raises:
            Misuse: The route does not declare it; it was not sent.
            TooLarge: The answer is longer than one that is remembered may be.
        """
        if head is not None:
            self._status = head.status
        if self._judge is not None:
            self.wrong = self.wrong or self._judge.part(self._status, body or None)
            if self.wrong:
                raise Misuse(self.wrong)
        if self._remembered:
            self._size += len(body)
            if self._size > MAX_REMEMBERED_BYTES:
                raise TooLarge(
                    f"the answer has more than {MAX_REMEMBERED_BYTES:,} bytes, and a longer one is not "
                    "remembered for a repetition; ask without an `Idempotency-Key`"
                )
            self._head = self._head or head
            if body or head is None:
                self._kept.append(body)
        self.begun = True
        await self._listener.take(body, head)

    def whole(self) -> bytes:
        """All its parts as one answer, where it is remembered; else none of them."""
        return joined(self._head, self._kept)


class LiveAnswers:
    """The calls whose parts are waited for, by their tokens. One per node."""

    def __init__(self) -> None:
        self._waiting: dict[int, LiveAnswer] = {}

    def open(self, token: int, answer: LiveAnswer) -> None:
        """Wait for the parts of a call that is about to run."""
        self._waiting[token] = answer

    def close(self, token: int) -> None:
        """Wait no longer."""
        self._waiting.pop(token, None)

    async def take(self, token: int, body: bytes, head: WireReply | None) -> None:
        """Send on a part of a call's answer.

        Raises:
            Fenced: Nobody waits for it.
            Misuse: The route does not declare it.
            TooLarge: The answer is longer than one that is remembered may be.
        """
        answer = self._waiting.get(token)
        if answer is None:
            raise Fenced("nobody waits for parts of this call's answer (any more)")
        await answer.take(body, head)
