"""What brings events in from outside the log: a source, and the outlet it appends through.

A source only appends: to a stream of its own, which its function then reads like any other. The
outlet makes an append and the source's checkpoint one change where the log lives in the store, so
that what it has seen and what it has said never part; elsewhere the ids it gives its events let the
log drop a repetition. Two nodes never both say a thing: the checkpoint must still be the one read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from headrace.keepers.brokers.base import Broker
from headrace.keepers.storage.base import Storage
from headrace.keepers.storage.keys import after, pack
from headrace.model.effects import Change, Check, Delete, Put, Space
from headrace.model.errors import Conflict, Fenced
from headrace.model.event import Event
from headrace.model.partitioning import partition_of
from headrace.model.record import Append, encode_events

NOTES_PAGE: Final = 1_000


class Outlet:
    """A source's way to the log. Used by one task."""

    def __init__(self, storage: Storage, broker: Broker, *, stream: str) -> None:
        self.stream = stream
        self._storage, self._broker = storage, broker
        self._key = checkpoint_key(stream)
        self._row: bytes | None = None
        self._loaded = False

    async def checkpoint(self) -> bytes | None:
        """What was last remembered; None for a source that starts for the first time."""
        self._row = await self._storage.get(Space.META, self._key)
        self._loaded = True
        return self._row

    async def notes(self) -> dict[str, bytes]:
        """Everything that was noted beside the checkpoint, by name."""
        found: dict[str, bytes] = {}
        prefix = pack("note", self.stream)
        low, high = prefix, after(prefix)
        while rows := await self._storage.scan(Space.META, low, high, limit=NOTES_PAGE):
            for key, value in rows:
                name = key[len(prefix) : -1].replace(b"\x00\xff", b"\x00")
                found[name.decode(errors="surrogateescape")] = value
            low = rows[-1][0] + b"\x00"
        return found

    async def emit(
        self,
        events: Sequence[Event],
        *,
        checkpoint: bytes | None = None,
        notes: Mapping[str, bytes | None] = MappingProxyType({}),
    ) -> None:
        """Append `events`, in order per key, and remember `checkpoint` (None: as before).

        Args:
            events: What was seen; none is fine.
            checkpoint: No checkpoint may be the beginning of a later one. It must change where
                notes do, for it is what keeps two nodes apart.
            notes: Remembered (None: forgotten) one by one, in the same change; for sources whose
                memory is too large to be written whole each time.

        Raises:
            Fenced: Another node has moved the checkpoint; begin again from `checkpoint()`.
            DiskFull, Overloaded, Unavailable: As `Storage.apply`; nothing was remembered.
        """
        if not self._loaded:
            await self.checkpoint()
        appends = self._appends(events)
        row = self._row if checkpoint is None else checkpoint
        checks = (Check(Space.META, self._key, self._row, fence=True),)
        puts = [] if row is None or row == self._row else [Put(Space.META, self._key, row)]
        deletes: list[Delete] = []
        for name, note in notes.items():
            key = pack("note", self.stream, name.encode(errors="surrogateescape"))
            if note is None:
                deletes.append(Delete(Space.META, key))
            else:
                puts.append(Put(Space.META, key, note))
        if appends and not self._broker.colocated:
            await self._broker.append(appends)
            appends = ()
        try:
            await self._storage.apply(Change(checks, tuple(puts), tuple(deletes), appends))
        except (Fenced, Conflict) as error:
            raise Fenced(f"another node feeds `{self.stream}`") from error
        self._row = row

    def _appends(self, events: Sequence[Event]) -> tuple[Append, ...]:
        partitions = self._broker.stream(self.stream).partitions
        groups: dict[int, list[Event]] = {}
        for event in events:
            number = 0 if event.key is None else partition_of(event.key, partitions)
            groups.setdefault(number, []).append(event)
        return tuple(
            Append(
                self.stream, number, len(chosen), encode_events(chosen),
                ids=tuple(event.id or "" for event in chosen) if any(e.id for e in chosen) else None,
            )
            for number, chosen in groups.items()
        )  # fmt: skip


def checkpoint_key(stream: str) -> bytes:
    """Where the checkpoint of a stream's source is kept, in `Space.META`."""
    return pack("source", stream)


class Source(Protocol):
    """Brings events in until it is cancelled."""

    async def run(self, outlet: Outlet) -> None:
        """Watch, and emit. Raising means: begin again after a pause.

        Raises:
            Misuse: It can never work as configured; the message says why and what to change.
        """
        ...
