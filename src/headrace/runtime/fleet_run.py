"""One run of the fleet, from `submit` to its outcome.

    submitted -> waits in a pool -> in flight in an instance -> ended
                      ^________________________|   lost and not to blame: run again, alone

Pools and instances change it; the submitter holds it as a `runtime.base.Run`.
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
"""How often a run is started that is lost each time."""


class WaitQueue(Protocol):
    """The pool in which a run waits."""

    def withdraw(self, run: FleetRun) -> bool:
        """Remove a waiting run; False if it does not wait any more."""
        ...


class RunHolder(Protocol):
    """The instance that has a run in flight."""

    @property
    def takes_another(self) -> bool:
        """Return whether one more can be sent ahead now."""
        ...

    def run_ahead(self, run: FleetRun) -> None:
        """Send a run behind the current one."""
        ...


class _NoWaiter:
    """The waiter of a run that has ended."""

    def done(self) -> bool:
        return True

    def set_result(self, outcome: Outcome, /) -> None:
        """Ignore it."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Ignore it."""


_NO_WAITER = _NoWaiter()


class FleetRun(msgspec.Struct, eq=False):
    """Implements `runtime.base.Run`. Created by the fleet; held by a pool or by an instance.

    Attributes:
        invocation: The invocation.
        done: Receives the outcome.
        start: Starts it again, by its fleet.
        alone: Whether it must not share its instance with another run.
        ahead: Whether it was sent while another ran, and starts only once it is claimed.
        answer_started: Whether its caller may have received a part of the answer.
        queue: The pool in which it waits or waited for an instance.
        holder: The instance that has it in flight.
        losses: How often it was lost.
    """

    invocation: Invocation
    done: Waiter
    start: Callable[[FleetRun], None]
    alone: bool = False
    ahead: bool = False
    answer_started: bool = False
    queue: WaitQueue | None = None
    holder: RunHolder | None = None
    losses: int = 0

    @property
    def takes_another(self) -> bool:
        """Return whether one more can be sent ahead now, to start when this one ends."""
        return self.holder is not None and not self.alone and self.holder.takes_another

    def cancel(self) -> bool:
        """Remove it from its pool's queue; False if an instance has it or had it."""
        return self.queue is not None and self.queue.withdraw(self)

    def ended(self, outcome: Outcome) -> None:
        """Finish with an outcome."""
        # The waiter may refer to this run: dropping both references avoids a cycle, which only the
        # garbage collector would free.
        done, self.done, self.holder = self.done, _NO_WAITER, None
        if not done.done():
            done.set_result(outcome)

    def refused(self, error: Exception) -> None:
        """Finish with an error, without having run."""
        done, self.done, self.holder = self.done, _NO_WAITER, None
        if not done.done():
            done.set_exception(error)

    def lost(self, reason: str) -> None:
        """Run it again, alone, as it was lost without proof that it caused the loss."""
        self.alone, self.ahead = True, False
        self.losses += 1
        if self.losses >= MAX_STARTS:
            name = self.invocation.function
            self.refused(Unavailable(f"no instance of `{name}` stays up: {reason}"))
        else:
            self.restart()

    def restart(self) -> None:
        """Start it as if it had been submitted now."""
        self.holder = None
        if self.done.done():
            return
        try:
            self.start(self)
        except Exception as error:  # noqa: BLE001 - reported to the waiter, not to the caller that lost it
            self.refused(error)
