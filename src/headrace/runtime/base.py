"""The runtime port: hand over an invocation, get an outcome; and what a running function may ask.

`fleet` runs the author's code in forked processes, `inline` right here for tests and simulation.
Both obey `tests/contract/test_invokers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, Scanned
from headrace.model.record import Chunk
from headrace.model.reply import WireReply
from headrace.runtime.states import Queued, Waiter

RECALLED = Crashed(Cause("Recalled", "the platform took the run back"), blameless=True)
"""It never ran: nothing to judge, nothing to count."""


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
    """Runs functions."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Run it to its end and say what came back; never raises for what user code did.

        Raises:
            Unknown: No such function is deployed here.
            Unavailable: No instance can be had now (draining, or the machine refuses to fork).
        """
        ...

    async def close(self) -> None:
        """Drain: let running invocations end, then stop every process."""
        ...


@runtime_checkable
class PromptInvoker(Protocol):
    """Runs functions without a task for each: where processes stand ready."""

    def begin(self, invocation: Invocation, waiter: Waiter) -> Queued | None:
        """Begin it, now or when its turn comes, in one line with those of `invoke`.

        The waiter is told what came of it, and stops nothing by going away.

        Returns:
            Where it waits; None where an instance has taken it.

        Raises:
            Unknown: No such function is deployed here.
            Overloaded: Too many wait already.
            Unavailable: No instance can be had now.
        """
        ...

    async def invoke(self, invocation: Invocation, *, lost: str = "") -> Outcome:
        """Run it to its end; `lost` says why it did not come back, where it was begun before.

        Raises:
            Unknown: No such function is deployed here.
            Overloaded: Too many wait for an instance already.
            Unavailable: No instance can be had now.
        """
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
