"""The runtime port: submit an invocation, be told its outcome.

`fleet` runs the author's code in forked processes, `inline` right here for tests and simulation.
Both obey `tests/contract/test_runtimes.py`. Every run, whoever wants it, is started by one `Submit`:
the runtime's own, behind the interceptors that `intercepted` has put in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Crashed, Outcome

RECALLED = Crashed(Cause("Recalled", "the platform took the run back"), blameless=True)
"""It never ran: nothing to judge, nothing to count."""


class Waiter(Protocol):
    """Receives the outcome of a run: a future, or an object that needs no task."""

    def done(self) -> bool:
        """Whether nobody wants the outcome any more: then it is not told, and a lost run not repeated."""
        ...

    def set_result(self, outcome: Outcome, /) -> None:
        """The run ended. Called on the loop, once, after `submit` has returned; must not raise.

        `RECALLED` where it was sent ahead and not begun in time.
        """
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """It could not be run. Called as `set_result`, in its place."""
        ...


class Run(Protocol):
    """A run that was submitted."""

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        ...

    def cancel(self) -> bool:
        """Do not begin it. True where it will not run, and its waiter hears nothing more."""
        ...


class Submit(Protocol):
    """Starts a run: the one way there is."""

    def __call__(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
        """Begin it, now or when its turn comes; `done` is told what came of it.

        What user code did is an outcome, never an exception. A run that is lost through no fault of
        its own is repeated, a bounded number of times, before anybody hears of it.

        Args:
            invocation: What to run.
            done: Told once, later.
            after: Send it ahead to the instance that has this run, to be begun when that one ends;
                only where it `takes_another`. Where that has ended, it is begun like any other.

        Raises:
            Unknown: No such function is deployed here.
            Overloaded: Too many runs wait for an instance already.
            Unavailable: No instance can be had now (draining, or the machine refuses to fork).
        """
        ...


Interceptor: TypeAlias = Callable[[Submit], Submit]
"""A `Submit` in front of another: it sees every run, and its outcome where it wraps the waiter."""


class Runtime(Protocol):
    """Runs functions."""

    @property
    def submit(self) -> Submit:
        """Starts runs, without interceptors."""
        ...

    async def close(self) -> None:
        """Drain: let running invocations end, then stop every process."""
        ...


def intercepted(submit: Submit, interceptors: Sequence[Interceptor]) -> Submit:
    """What submits through the interceptors; the first of them sees a run first, its outcome last."""
    for interceptor in reversed(interceptors):
        submit = interceptor(submit)
    return submit


async def invoke(submit: Submit, invocation: Invocation) -> Outcome:
    """Run it to its end; a caller that is cancelled takes it out of the line.

    Raises:
        Unknown, Overloaded, Unavailable: As `Submit`.
    """
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    run = submit(invocation, done)
    try:
        return await done
    except asyncio.CancelledError:
        run.cancel()
        raise
