"""Number of batches that go to an instance together, to be run one after the other. Pure.

The host's cost of a batch does not depend on its size: two frames, a verdict, a commit. If several
batches wait and runs are short, they are sent as a *group of coalesced batches*, one unit whose
batches remain separate invocations (`CoalescedInvocation`). The group grows while every batch
succeeds and only publishes; after any other outcome batches go alone again for a while.
"""

from __future__ import annotations

from headrace.delivery.unit import Unit, cut
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Cause, Outcome

MOST = 16
"""Batches in a group of coalesced batches."""
TOGETHER_S = 0.001
"""The longest expected run time of a group of coalesced batches."""
ALONE_AFTER_A_CUT = 64


class CoalescedBatches:
    """The number of batches that one partition worker sends together. Owned by the partition worker.

    Attributes:
        size: The current number.
    """

    __slots__ = ("_alone", "_batch", "_most", "size")

    def __init__(self, spec: FunctionSpec) -> None:
        self._batch = spec.batch_size
        self._most = MOST if may_travel(spec) else 1
        self._alone = 0
        self.size = 1

    @property
    def most(self) -> int:
        """Return the maximum number of batches that it may send together."""
        return self._most

    def ended(self, events: int, outcome: Outcome) -> None:
        """Adapt to the outcome of a unit of new events."""
        if self._most == 1:
            return
        batches = -(-events // self._batch)
        if not outcome.only_published:
            # A single batch was not a group, so its failure says nothing about groups.
            self._alone = ALONE_AFTER_A_CUT if batches > 1 else self._alone
            self.size = 1
        elif self._alone > 0:
            self._alone -= 1
        elif (seconds := outcome.usage.wall) > 0:
            fitting = int(TOGETHER_S * batches / seconds)
            # Doubled, as the time of one short run says little about sixteen.
            self.size = max(min(self.size * 2, fitting, self._most), 1)
        else:
            self.size = min(self.size * 2, self._most)


def batches_of(unit: Unit, size: int, cause: Cause | None = None) -> tuple[Unit, ...]:
    """Return the batches of a group as separate units."""
    return tuple(
        Unit(cut(unit.chunks, low, low + size), cause=cause) for low in range(0, unit.size, size)
    )


def may_travel(spec: FunctionSpec) -> bool:
    """Return whether no option of the function is counted or granted per invocation."""
    return (
        spec.commit == "after"
        and spec.scaling.max_invocations is None
        and spec.resources.cpu is None
    )
