"""How many batches go to an instance together, to be run one after the other. Pure.

A batch costs the host the same whatever it holds: a frame out, a frame back, a verdict, a commit. Where
several wait already and runs are short they travel as a *group of coalesced batches*, one unit whose batches remain
invocations of their own (`CoalescedInvocation`). It grows while all of it comes through and nothing but
events was published; whatever else comes back, batches go alone again for a while.
"""

from __future__ import annotations

from headrace.delivery.unit import Unit, cut
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Cause, Outcome

MOST = 16
"""Batches in a group of coalesced batches."""
TOGETHER_S = 0.001
"""How long a group of coalesced batches may be expected to run."""
ALONE_AFTER_A_CUT = 64


class CoalescedBatches:
    """How many batches one partition worker sends together now. Owned by the partition worker.

    Attributes:
        size: So many.
    """

    __slots__ = ("_alone", "_batch", "_most", "size")

    def __init__(self, spec: FunctionSpec) -> None:
        self._batch = spec.batch_size
        self._most = MOST if may_travel(spec) else 1
        self._alone = 0
        self.size = 1

    @property
    def most(self) -> int:
        """Batches it may ever send together."""
        return self._most

    def ended(self, events: int, outcome: Outcome) -> None:
        """A unit of new events came back so."""
        if self._most == 1:
            return
        batches = -(-events // self._batch)
        if not outcome.only_published:
            # With one batch alone nothing was tried that failed.
            self._alone = ALONE_AFTER_A_CUT if batches > 1 else self._alone
            self.size = 1
        elif self._alone > 0:
            self._alone -= 1
        elif (seconds := outcome.usage.wall) > 0:
            fitting = int(TOGETHER_S * batches / seconds)
            self.size = max(min(self.size * 2, fitting, self._most), 1)
        else:
            self.size = min(self.size * 2, self._most)


def batches_of(unit: Unit, size: int, cause: Cause | None = None) -> tuple[Unit, ...]:
    """A group of coalesced batches as units that go alone."""
    return tuple(
        Unit(cut(unit.chunks, low, low + size), cause=cause) for low in range(0, unit.size, size)
    )


def may_travel(spec: FunctionSpec) -> bool:
    """Whether nothing the function asks for is counted or granted by the invocation."""
    return (
        spec.commit == "after"
        and spec.scaling.max_invocations is None
        and spec.resources.cpu is None
    )
