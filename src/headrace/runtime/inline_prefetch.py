"""The twin of runs that are sent ahead: a run of the inline invoker, and the one behind it.

In: invocations. Out: outcomes, in an order that instances could give them. Which run takes another
one, which is taken back, and which ends before anybody has heard of the one before it, is read off
the invocations' tokens: a simulation meets all of it, and the same again with the same seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from headrace.model.errors import Unavailable
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome, Returned
from headrace.runtime.base import RECALLED

TAKES_ANOTHER, HURRIES = 0b01, 0b10
TAKEN_BACK = 0b111_00


class InlineSent:
    """Implements `runtime.base.Begun`. Used by one task."""

    def __init__(
        self,
        invoke: Callable[[Invocation], Awaitable[Outcome]],
        invocation: Invocation,
        before: InlineSent | None = None,
    ) -> None:
        self._invoke = invoke
        self._invocation = invocation
        self._before = before
        self._following: InlineSent | None = None
        self._outcome: Outcome | None = None

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now."""
        ended = self._outcome is not None or self._following is not None
        return not ended and bool(self._invocation.token & TAKES_ANOTHER)

    def follow(self, invocation: Invocation) -> InlineSent:
        """Send it ahead."""
        self._following = InlineSent(self._invoke, invocation, self)
        return self._following

    async def outcome(self) -> Outcome:
        """What came of it, which may be told only after the next one has run as well."""
        if self._outcome is None:
            self._outcome = await self._run()
        following = self._following
        if following is not None and following._invocation.token & HURRIES:
            with contextlib.suppress(Unavailable):
                await following.outcome()
        return self._outcome

    async def _run(self) -> Outcome:
        before = self._before
        if before is not None:
            died = not isinstance(before._outcome, Returned)
            if died or not self._invocation.token & TAKEN_BACK:
                return RECALLED
        return await self._invoke(self._invocation)
