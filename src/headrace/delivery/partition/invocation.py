"""A unit as the call that runs it: the one place where an invocation by events is made up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from headrace.delivery.unit import Unit
from headrace.environment.randomness import Entropy
from headrace.model.function import FunctionSpec
from headrace.model.invocation import BatchInvocation, CoalescedInvocation, key_of
from headrace.model.outcome import Outcome
from headrace.model.policy import CONVOY_SPARE_S
from headrace.runtime.base import Run

WRITE_BITS = 62


@dataclass(slots=True)
class UnitCall:
    """A unit that is taken up; owned by the worker that runs it.

    Attributes:
        unit: What runs.
        invocation: As what.
        done: Told what came of it.
        run: What was submitted; None where it was refused, which `done` says.
        started: When it was submitted, by the monotonic clock.
    """

    unit: Unit
    invocation: BatchInvocation
    done: asyncio.Future[Outcome]
    run: Run | None
    started: float

    def cancel(self) -> None:
        """Nobody wants its outcome any more: do not begin it, nor again where it is lost."""
        if self.run is not None:
            self.run.cancel()
        self.done.cancel()


def call_of(
    unit: Unit, spec: FunctionSpec, entropy: Entropy, *, now: int, affinity: str, fresh: bool
) -> BatchInvocation:
    """The next attempt at `unit`.

    Args:
        unit: What is to run.
        spec: The function.
        entropy: Gives the token of the writes, and the seed of the handler's own chance.
        now: Microseconds since the epoch.
        affinity: The instance that ran this last is asked first; "" where any will do.
        fresh: What an instance remembers of the state may be stale.
    """
    token, seed = entropy.integer(WRITE_BITS) + 1, entropy.integer(WRITE_BITS)
    key = key_of(spec.name, unit.chunks[0])
    if unit.size > spec.batch_size:
        # What holds more than a batch is a group of coalesced batches, wherever it comes from.
        return CoalescedInvocation(
            spec.name,
            spec.timeout + CONVOY_SPARE_S,
            token,
            key,
            now=now,
            seed=seed,
            chunks=unit.chunks,
            attempt=unit.attempts + 1,
            order=spec.order,
            fresh=fresh,
            affinity=affinity,
            each=spec.batch_size,
        )
    return BatchInvocation(
        spec.name,
        spec.timeout,
        token,
        key,
        now=now,
        seed=seed,
        chunks=unit.chunks,
        attempt=unit.attempts + 1,
        order=spec.order,
        fresh=fresh,
        affinity=affinity,
    )
