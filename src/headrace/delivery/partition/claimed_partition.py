"""A partition that this node owns for one function: the argument of its worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.delivery.partition.settle import Settler, settle
from headrace.delivery.positions import Claim
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk
from headrace.storage.log.base import Reader


@dataclass(frozen=True)
class ClaimedPartition:
    """One partition of a stream, or of several co-partitioned ones, claimed for one function.

    Attributes:
        spec: The function.
        partition: Its number, the same in every stream.
        claims: The claim of each stream's partition, by stream.
        readers: One for each stream, in the order of `claims`.
        lateness: Seconds for which a merge waits for a stream that has nothing to read.
        wants: Selects the events of a chunk that match the trigger; None if all do.
        merges: Stores the order of a merge; None if a single stream is read.
        compacted: The streams that keep only the last event of each key.
        settle: Gives the verdict on a unit that has run.
    """

    spec: FunctionSpec
    partition: int
    claims: dict[str, Claim]
    readers: Sequence[Reader]
    lateness: float = 1.0
    wants: Callable[[Chunk], set[int]] | None = None
    merges: MergeOrderStore | None = None
    compacted: frozenset[str] = frozenset()
    settle: Settler = settle

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the streams that are read together."""
        return tuple(self.claims)

    @property
    def is_one_by_one(self) -> bool:
        """Return whether one unit at a time runs, in the order of the log.

        Ordered functions and merges require it. So does `commit="before"`: the commit after its run
        moves no position, so nothing would fence the commits that follow.
        """
        spec = self.spec
        return spec.order == "partition" or len(self.claims) > 1 or spec.commit == "before"

    @property
    def width(self) -> int:
        """Return how many units run at once."""
        return 1 if self.is_one_by_one else self.spec.parallelism

    @property
    def in_lanes(self) -> bool:
        """Return whether order is per key, or there is none."""
        return not self.is_one_by_one and self.spec.works_in_lanes
