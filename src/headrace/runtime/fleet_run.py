"""One run of the fleet, from `submit` to its outcome: who has it now, and what became of it before.

    submitted -> in a pool's line -> in an instance's hands -> ended
                      ^________________________|   lost through no fault of its own: run again, alone

Pools and instances move it along; whoever submitted it holds it as a `runtime.base.Run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.model.errors import Unavailable
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.runtime.base import Waiter

MAX_STARTS = 3
"""How often a run is begun that is lost each time."""


class WaitingLine(Protocol):
    """The pool in whose line a run waits."""

    def withdraw(self, run: FleetRun) -> bool:
        """Take it out of the line; False where it is not there any more."""
        ...


class RunHolder(Protocol):
    """The instance that has a run in hand."""

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now."""
        ...

    def run_ahead(self, run: FleetRun) -> None:
        """Send it behind the one in hand."""
        ...


class FleetRun:
    """Implements `runtime.base.Run`. Its fleet makes it; of its pool and instance one has it.

    Attributes:
        invocation: What runs.
        done: Who is told what came of it.
        alone: It shares its instance with no other run.
        ahead: It was sent while another ran, and is begun only once it is claimed.
        heard: Its caller may have a part of the answer.
        line: Where it waits for an instance.
        holder: Which instance has it.
    """

    __slots__ = (
        "_losses",
        "_start",
        "ahead",
        "alone",
        "done",
        "heard",
        "holder",
        "invocation",
        "line",
    )

    def __init__(
        self, invocation: Invocation, done: Waiter, start: Callable[[FleetRun], None]
    ) -> None:
        self.invocation = invocation
        self.done = done
        # What consumes by itself goes on for long: nothing waits behind it.
        self.alone = invocation.mode == "consume"
        self.ahead = self.heard = False
        self.line: WaitingLine | None = None
        self.holder: RunHolder | None = None
        self._start = start
        self._losses = 0

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        return self.holder is not None and not self.alone and self.holder.takes_another

    def cancel(self) -> bool:
        """Take it out of the line; False where an instance has it, or had it."""
        return self.line is not None and self.line.withdraw(self)

    def ended(self, outcome: Outcome) -> None:
        """This came of it."""
        self.line = self.holder = None
        if not self.done.done():
            self.done.set_result(outcome)

    def refused(self, error: Exception) -> None:
        """It waited in vain."""
        self.line = self.holder = None
        if not self.done.done():
            self.done.set_exception(error)

    def lost(self, reason: str) -> None:
        """It did not come back and nothing is proven against it: run it again, alone."""
        self.alone, self.ahead = True, False
        self._losses += 1
        if self._losses >= MAX_STARTS:
            name = self.invocation.function
            self.refused(Unavailable(f"no instance of `{name}` stays up: {reason}"))
        else:
            self.restart()

    def restart(self) -> None:
        """Begin it as if it had been submitted now."""
        self.line = self.holder = None
        if self.done.done():
            return
        try:
            self._start(self)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, not whoever lost it
            self.refused(error)
