"""A partition that this node owns for one function, as its worker is given it."""

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
        wants: Chooses the events of a chunk that the trigger is about; None where all are meant.
        merges: Keeps the order of a merge; None where one stream is read by itself.
        compacted: The streams that keep the last event of each key only.
        settle: Decides what becomes of a unit that has run.
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
        """The streams that are read together."""
        return tuple(self.claims)

    @property
    def is_one_by_one(self) -> bool:
        """Whether one unit at a time runs, in the order of the log.

        Ordered functions and merges ask for it. So does `commit="before"`: what lands after its run moves
        no position, so nothing would fence the commits behind it.
        """
        spec = self.spec
        return spec.order == "partition" or len(self.claims) > 1 or spec.commit == "before"

    @property
    def width(self) -> int:
        """How many units run at once."""
        return 1 if self.is_one_by_one else self.spec.parallelism

    @property
    def in_lanes(self) -> bool:
        """Whether order is per key, or there is none."""
        return not self.is_one_by_one and self.spec.works_in_lanes
