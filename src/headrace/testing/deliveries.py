"""Outcomes of the runs in a world: planned by a test, or the result of the handler.

In: plans, and every invocation before and after it runs. Out: the outcome that was planned, and one
`Delivery` noted for each event that was handed over. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Crashed, Outcome, Returned, TimedOut
from headrace.model.record import Position
from headrace.testing.faults import HostWatcher, SimulatedHost


class Delivery(msgspec.Struct, frozen=True):
    """One event handed to one function once.

    Attributes:
        outcome: `done`, `failed`, or `lost` where the run left no trace.
    """

    function: str
    position: Position
    key: str | None
    attempt: int
    outcome: str


class Deliveries(HostWatcher):
    """Every delivery of a world, and what shall become of the next ones.

    Attributes:
        seen: Every delivery, in order.
        twice: How many of the next runs are to be lost with their host, once their handler has run.
    """

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.seen: list[Delivery] = []
        self.twice = 0
        self._sleep = sleep
        self._planned: dict[str, list[tuple[Outcome, bool]]] = {}

    def plan(
        self, function: str, times: int, outcome: Outcome, *, takes_timeout: bool = False
    ) -> None:
        """Let the next `times` runs of the function end so, before their handler does anything.

        Args:
            function: The full name.
            times: How many runs.
            outcome: How they end.
            takes_timeout: Whether each takes as long as its timeout, and otherwise no time.
        """
        self._planned.setdefault(function, []).extend([(outcome, takes_timeout)] * times)

    async def before(self, host: SimulatedHost, invocation: Invocation) -> Outcome | None:
        """The planned outcome of a run, if there is one."""
        planned = self._planned.get(invocation.function)
        if not planned:
            return None
        outcome, takes_timeout = planned.pop(0)
        if takes_timeout:
            await self._sleep(invocation.timeout)
        self._note(invocation, outcome)
        return outcome

    async def after(
        self, host: SimulatedHost, invocation: Invocation, outcome: Outcome
    ) -> Outcome | None:
        """Note what a run did; and lose it with its host, where that is planned."""
        self._note(invocation, outcome)
        if self.twice:
            self.twice -= 1
            host.die("after a handler had run, before its commit")
        return None

    def _note(self, invocation: Invocation, outcome: Outcome) -> None:
        if not isinstance(invocation, BatchInvocation):
            # A call stands on no stream: whether it happened is between it and its caller.
            return
        index = 0
        for chunk in invocation.chunks:
            for place, event in enumerate(chunk.events(), start=chunk.low):
                at = Position(chunk.stream, chunk.partition, chunk.offset_of(place))
                self.seen.append(
                    Delivery(
                        invocation.function,
                        at,
                        event.key,
                        invocation.attempt,
                        fate_of(outcome, index),
                    )
                )
                index += 1

    def first_done(self, function: str) -> list[Delivery]:
        """The first successful delivery of each event, in the order they happened."""
        done: dict[Position, Delivery] = {}
        for one in self.seen:
            if one.function == function and one.outcome == "done":
                done.setdefault(one.position, one)
        return list(done.values())


def fate_of(outcome: Outcome, index: int) -> str:
    """Return the outcome of the event at `index`."""
    match outcome:
        case Returned(error=None, failures=failures, untouched=untouched):
            if any(failure.index == index for failure in failures):
                return "failed"
            return "done" if untouched < 0 or index < untouched else "lost"
        case Returned(done=done):
            return "done" if index in done else "failed"
        case Crashed() | TimedOut():
            return "failed"
