"""Consumer of a function that a lag starts: its handler takes a `consumer: Consumer[T]`."""

from __future__ import annotations

from typing import Protocol

from headrace.sdk.batch import Batch
from headrace.sdk.type_variables import T


class Consumer(Protocol[T]):
    """Reads the partitions this run was given, and says when what was done so far is to land."""

    def fetch(self, events: int = 500) -> Batch[T]:
        """The next events, in order per partition; an empty batch means: come to an end.

        It never waits. Nothing more is given when nothing is there, when the lifespan is over, or
        when the partitions are to be shared out again.

        Raises:
            Misuse: `events` is out of range, or too much was fetched without a `commit()`.
        """
        ...

    def commit(self) -> None:
        """Let everything fetched so far count as done, and all effects since the last commit land.

        Both in one change, or neither: then it raises, and the run can do nothing more. What comes
        after the last `commit()` lands when the handler returns, and is lost where it raises.

        Raises:
            Misuse: It is called inside a loop over a batch, or an event was marked as failed.
        """
        ...

    @property
    def positions(self) -> dict[int, int]:
        """The next offset to be fetched, by partition."""
        ...

    @property
    def lag(self) -> int:
        """Events of these partitions that were not fetched yet."""
        ...
