"""One run of the fleet, from `submit` to its outcome: who has it now, and what became of it before.

    submitted -> in a pool's line -> in an instance's hands -> ended
                      ^________________________|   lost through no fault of its own: run again, alone

Pools and instances move it along; whoever submitted it holds it as a `runtime.base.Run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

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


class _Nobody:
    """The waiter of a run that has ended."""

    def done(self) -> bool:
        return True

    def set_result(self, outcome: Outcome, /) -> None:
        """Nobody hears it."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Nobody hears it."""


_NOBODY = _Nobody()


class FleetRun(msgspec.Struct, eq=False):
    """Implements `runtime.base.Run`. Its fleet makes it; of its pool and instance one has it.

    Attributes:
        invocation: What runs.
        done: Who is told what came of it.
        start: Begins it, as its fleet does.
        alone: It shares its instance with no other run.
        ahead: It was sent while another ran, and is begun only once it is claimed.
        heard: Its caller may have a part of the answer.
        line: Where it waits for an instance, or waited.
        holder: Which instance has it.
        losses: How often it was lost.
    """

    invocation: Invocation
    done: Waiter
    start: Callable[[FleetRun], None]
    alone: bool = False
    ahead: bool = False
    heard: bool = False
    line: WaitingLine | None = None
    holder: RunHolder | None = None
    losses: int = 0

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        return self.holder is not None and not self.alone and self.holder.takes_another

    def cancel(self) -> bool:
        """Take it out of the line; False where an instance has it, or had it."""
        return self.line is not None and self.line.withdraw(self)

    def ended(self, outcome: Outcome) -> None:
        """This came of it."""
        # Its waiter may know it: what has ended refers to nobody, so that no circle is left behind.
        done, self.done, self.holder = self.done, _NOBODY, None
        if not done.done():
            done.set_result(outcome)

    def refused(self, error: Exception) -> None:
        """It waited in vain."""
        done, self.done, self.holder = self.done, _NOBODY, None
        if not done.done():
            done.set_exception(error)

    def lost(self, reason: str) -> None:
        """It did not come back and nothing is proven against it: run it again, alone."""
        self.alone, self.ahead = True, False
        self.losses += 1
        if self.losses >= MAX_STARTS:
            name = self.invocation.function
            self.refused(Unavailable(f"no instance of `{name}` stays up: {reason}"))
        else:
            self.restart()

    def restart(self) -> None:
        """Begin it as if it had been submitted now."""
        self.holder = None
        if self.done.done():
            return
        try:
            self.start(self)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, not whoever lost it
            self.refused(error)
