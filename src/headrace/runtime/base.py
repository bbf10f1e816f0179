"""The runtime port: submit an invocation, be told its outcome; and what a running function may ask.

`fleet` runs the author's code in forked processes, `inline` right here for tests and simulation.
Both obey `tests/contract/test_runtimes.py`. Every run, whoever wants it, is started by one `Submit`:
the runtime's own, behind the interceptors that `intercepted` has put in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, Scanned
from headrace.model.record import Chunk
from headrace.model.reply import WireReply

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

        What user code did is an outcome, never an exception. A run that is lost through no fault of its
        own is repeated, a bounded number of times, before anybody hears of it.

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


class RunHandle(Protocol):
    """A run that an instance has in hand, or will take up when it has ended the one before."""

    @property
    def takes_another(self) -> bool:
        """Whether one more can be sent ahead now, to be begun when this one ends."""
        ...

    def follow(self, invocation: Invocation) -> RunHandle:
        """Send it ahead; only where it `takes_another`, asked in the same turn of the loop."""
        ...

    async def outcome(self) -> Outcome:
        """As `Invoker.invoke`; `RECALLED` where it was sent ahead and not begun in time."""
        ...


Lead: TypeAlias = Callable[[Invocation], RunHandle | None]
"""Begins a run that others may follow; None where it has to wait, for `Invoker.invoke`. Raises as that."""


class Invoker(Protocol):
    """Runs functions to their ends."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """As `runtime.base.invoke`."""
        ...

    async def close(self) -> None:
        """Close the runtime."""
        ...


class HostServices(Protocol):
    """What a running function may ask its host for. Filled in by `delivery/hostcalls`."""

    async def read_state(self, app: str, keys: Sequence[str]) -> list[tuple[int, bytes | None]]:
        """Version (0: absent) and value of each key of the app's state; expired ones are absent."""
        ...

    async def scan_state(self, app: str, prefix: str, *, limit: int) -> Scanned:
        """The app's state keys that start with `prefix`, ascending, and all that was looked at."""
        ...


@runtime_checkable
class SecretServices(Protocol):
    """What hosts that keep secrets answer beside. Who may ask for which is known to whoever calls."""

    def read_secret(self, name: str) -> str:
        """The value of a secret.

        Raises:
            Misuse: It is not set, or cannot be read.
        """
        ...

    def blot(self, text: str) -> str:
        """The text without the values of secrets."""
        ...


@runtime_checkable
class AnswerServices(Protocol):
    """What hosts answer beside where calls are answered part by part, by the calls' tokens."""

    async def send_part(self, token: int, body: bytes, head: WireReply | None) -> None:
        """Send on the next part of the answer; returns when there is room for another one.

        Raises:
            Fenced: Nobody waits for the parts of this call (any more).
        """
        ...


@runtime_checkable
class ConsumerServices(Protocol):
    """What hosts with streams answer beside: runs that fetch events themselves, by their tokens."""

    async def fetch(self, token: int, events: int) -> tuple[list[Chunk], int]:
        """The next events of the run (none: it is to end), and how many were not fetched.

        Raises:
            Fenced: It holds no partitions (any more).
        """
        ...

    async def land(self, token: int, returned: Returned) -> None:
        """Commit what the run fetched and did since the last time, all of it or nothing.

        Raises:
            Fenced: It holds no partitions (any more).
            Conflict: State it relied on has changed.
        """
        ...
