"""When the wait of a debounced key began, kept where the log no longer says so.

While nothing of a key has been left out, its first event waits in the log, and its date is the
beginning. What a later event takes the place of counts as done; so the change that says so also
keeps a row of the key: when its wait began, and which event carries it on. A row whose event is not
the one that waits means nothing. It goes with the event that carried it.
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
    """Owned by one partition worker; as many rows as keys wait in its lanes, where the function asks for any."""

    def __init__(self, spec: FunctionSpec, streams: Sequence[str], partition: int) -> None:
        self.keeps_rows = spec.debounce is not None and spec.debounce.longest is not None
        self._prefix = {name: pack("debounce", spec.name, name, partition) for name in streams}
        self._begun: dict[At, tuple[Place, int]] = {}
        self._carrier: dict[Place, At] = {}
        self._unsaved: dict[Place, Row] = {}

    def since(self, at: At, appended: int) -> int:
        """When the wait began that the event at this place, appended then, is the first to carry."""
        known = self._begun.get(at)
        return appended if known is None else known[1]

    def carried_on(self, place: Place, at: At, since: int) -> None:
        """The events of this key before that one are left out; the wait goes on."""
        if not self.keeps_rows:
            return
        self._forget(place)
        self._carrier[place] = at
        self._begun[at] = (place, since)
        row = since.to_bytes(8, "big") + at[1].to_bytes(8, "big")
        self._unsaved[place] = Put(Space.META, self._key(place), row)

    def finished(self, chunks: Iterable[Chunk]) -> None:
        """These events wait no longer."""
        if not self._begun:
            return
        for chunk in chunks:
            for index in range(chunk.low, chunk.high):
                known = self._begun.get((chunk.stream, chunk.offset_of(index)))
                if known is not None:
                    self._forget(known[0])
                    self._unsaved[known[0]] = Delete(Space.META, self._key(known[0]))

    def unsaved(self) -> tuple[Row, ...]:
        """Rows that must ride with the positions that say what was left out, or has run."""
        rows = tuple(self._unsaved.values())
        self._unsaved.clear()
        return rows

    async def load(self, storage: Storage) -> None:
        """Begin (again) at what the store says."""
        self._begun.clear()
        self._carrier.clear()
        self._unsaved.clear()
        if not self.keeps_rows:
            return
        for stream, prefix in self._prefix.items():
            async for packed, row in rows_of(storage, prefix):
                place = (stream, key_of(packed[len(prefix) :]))
                at = (stream, int.from_bytes(row[8:], "big"))
                self._carrier[place] = at
                self._begun[at] = (place, int.from_bytes(row[:8], "big"))

    def _forget(self, place: Place) -> None:
        at = self._carrier.pop(place, None)
        if at is not None:
            del self._begun[at]

    def _key(self, place: Place) -> bytes:
        return self._prefix[place[0]] + key_name(place[1])
