"""The partition of an event, as the host computes it; the child computes the same.

The rule itself is `headrace.model.partitioner`, which a child may import. This adds the choice for
events without a key: one partition for a while, then the next, so that batches stay whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.model.event import Event
from headrace.model.partitioner import split

# Changing it at every event would spread a batch over all partitions, a row for each.
STICKY_EVENTS = 1_000


class Sticky:
    """Spreads events without a key over the partitions, a batch at a time. One per producer."""

    def __init__(self) -> None:
        self._sent = 0

    def split(self, events: Iterable[Event], partitions: int) -> dict[int, list[Event]]:
        """The events by partition, each list in the order given."""
        found = split(events, partitions, self._sent // STICKY_EVENTS)
        # Counted in events, not calls: a producer of single events changes the partition as rarely
        # as one of batches.
        self._sent += sum(len(each) for each in found.values())
        return found
