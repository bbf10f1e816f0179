"""Start times of the waits of debounced keys, stored once the log does not hold them any more.

While no event of a key has been left out, its first event waits in the log, and its time is the
start of the wait. An event that a later one replaces counts as done, so the change that says so
also stores a row for the key: the start of its wait, and the event that continues it. A row whose
event does not wait any more is ignored. It is deleted with that event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.delivery.flow.limits import Key, Row, key_name, key_of, rows_of
from headrace.model.effects import Delete, Put, Space
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import pack

Place = tuple[str, Key]
At = tuple[str, int]


class DebounceWaits:
    """Owned by one partition worker; one row for each key that waits in its lanes, if the function needs them."""

    def __init__(self, spec: FunctionSpec, streams: Sequence[str], partition: int) -> None:
        self.keeps_rows = spec.debounce is not None and spec.debounce.longest is not None
        self._prefix = {name: pack("debounce", spec.name, name, partition) for name in streams}
        self._started: dict[At, tuple[Place, int]] = {}
        self._carrier: dict[Place, At] = {}
        self._unsaved: dict[Place, Row] = {}

    def since(self, at: At, appended: int) -> int:
        """Return when the wait of the event at this position started: when it was `appended`, unless a row says earlier."""
        known = self._started.get(at)
        return appended if known is None else known[1]

    def carried_on(self, place: Place, at: At, since: int) -> None:
        """Note that the key's earlier events are left out and the wait continues with this one."""
        if not self.keeps_rows:
            return
        # The event that carried the wait so far is finished by the same change.
        self._forget(place)
        self._carrier[place] = at
        self._started[at] = (place, since)
        row = since.to_bytes(8, "big") + at[1].to_bytes(8, "big")
        self._unsaved[place] = Put(Space.META, self._key(place), row)

    def finished(self, chunks: Iterable[Chunk]) -> None:
        """Delete the rows of events that do not wait any more."""
        if not self._started:
            return
        for chunk in chunks:
            for index in range(chunk.low, chunk.high):
                known = self._started.get((chunk.stream, chunk.offset_of(index)))
                if known is not None:
                    self._forget(known[0])
                    self._unsaved[known[0]] = Delete(Space.META, self._key(known[0]))

    def unsaved(self) -> tuple[Row, ...]:
        """Return the rows to commit together with the positions of events that were left out or have run."""
        rows = tuple(self._unsaved.values())
        self._unsaved.clear()
        return rows

    async def load(self, storage: Storage) -> None:
        """Load the rows from the store, in place of those in memory."""
        self._started.clear()
        self._carrier.clear()
        self._unsaved.clear()
        if not self.keeps_rows:
            return
        for stream, prefix in self._prefix.items():
            async for packed, row in rows_of(storage, prefix):
                place = (stream, key_of(packed[len(prefix) :]))
                at = (stream, int.from_bytes(row[8:], "big"))
                self._carrier[place] = at
                self._started[at] = (place, int.from_bytes(row[:8], "big"))

    def _forget(self, place: Place) -> None:
        at = self._carrier.pop(place, None)
        if at is not None:
            del self._started[at]

    def _key(self, place: Place) -> bytes:
        return self._prefix[place[0]] + key_name(place[1])
