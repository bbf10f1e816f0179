"""The interface between a storage and its log: how appends join a transaction.

A log that is kept in the storage, or an outbox to one that is not, attaches itself as the `Appender`.
For every group of changes the storage stages their appends in order, flushes the rows they became,
and says how the commit went. The storage knows nothing of streams; the appender knows nothing of
transactions. Never called from two threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.model.record import Append
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import Look

Cell = int | bytes | str | None
Statement = tuple[str, Sequence[tuple[Cell, ...]]]


class Appender(Protocol):
    """A log within the store, or an outbox. All its methods are called on the loop's thread."""

    def stage(self, appends: Sequence[Append], look: Look) -> Applied:
        """Give the events their offsets; all appends of the change, or none and an error.

        Ids are judged here, those of what is due `later` too: that is kept as a row until then, and
        taken back here. `look` is the value at a key as the changes before this one leave it.

        Raises:
            Unknown: A stream or partition does not exist.
            TooLarge: An append or an event is larger than allowed.
            Invalid: A body is not an array of the events it claims.
        """
        ...

    def flush(self) -> list[Statement]:
        """Return the statements that write everything staged; called once per attempt."""
        ...

    def landed(self) -> None:
        """Show readers what was staged: it is durable now."""
        ...

    def dropped(self) -> None:
        """Forget what was staged: it did not land."""
        ...
