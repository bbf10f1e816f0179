"""The port of sources, which bring events in from outside the log, and the appender they use.

A source only appends: to its own private stream, which its function then reads like any other. The
appender puts an append and the source's checkpoint into one change, so that the two always agree.
Two nodes never both append an event: the checkpoint must still be the one that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

import msgspec

from headrace.model.effects import Change, Check, Delete, Put, Space
from headrace.model.errors import Conflict, Corrupt, Fenced
from headrace.model.event import Event
from headrace.model.partitioner import partition_of
from headrace.model.record import Append, encode_events
from headrace.storage.kv.base import Commit, Storage, scan_pages
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.base import Broker

T = TypeVar("T")

NOTES_PAGE: Final = 1_000
NAMED: Final = 3
"""Streams that an error names, at most."""


class SourceAppender:
    """A source's way to the log. Used by one task at a time.

    Args:
        on_success: Called each time the source reports that it works.

    Attributes:
        stream: The stream it appends to.
        key: Where its checkpoint is kept, in `Space.META`.
        row: The checkpoint as it was last read or said; None where there is none.
    """

    def __init__(
        self,
        storage: Storage,
        broker: Broker,
        commit: Commit,
        *,
        stream: str,
        on_success: Callable[[], None] | None = None,
    ) -> None:
        self.stream = stream
        self.storage = storage
        self.broker = broker
        self.commit = commit
        self.key = checkpoint_key(stream)
        self.row: bytes | None = None
        self._on_success = on_success
        self._loaded = False

    def works(self) -> None:
        """The source has looked once, or is connected, and said what it saw: it does not fail now."""
        if self._on_success is not None:
            self._on_success()

    async def checkpoint(self) -> bytes | None:
        """Read the checkpoint; None for a source that starts for the first time."""
        self.row = await self.storage.get(Space.META, self.key)
        self._loaded = True
        return self.row

    async def notes(self) -> dict[str, bytes]:
        """Return all notes that are stored with the checkpoint, by name."""
        found: dict[str, bytes] = {}
        prefix = pack("note", self.stream)
        async for page in scan_pages(
            self.storage, Space.META, prefix, after(prefix), limit=NOTES_PAGE
        ):
            for key, value in page:
                # The inverse of `pack`; file names need not be UTF-8, hence surrogates.
                name = key[len(prefix) : -1].replace(b"\x00\xff", b"\x00")
                found[name.decode(errors="surrogateescape")] = value
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
                notes do: only the checkpoint keeps a second node from appending the same.
            notes: Remembered (None: forgotten) one by one, in the same change; for sources whose
                memory is too large to be written whole each time.

        Raises:
            Fenced: Another node has moved the checkpoint; begin again from `checkpoint()`.
            DiskFull, Overloaded, Unavailable: As `Storage.apply`; nothing was remembered.
        """
        # Without it `row` would be None, and the check would pass only for a source that never
        # ran.
        if not self._loaded:
            await self.checkpoint()
        await say([self.draft(events, checkpoint=checkpoint, notes=notes)])

    def draft(
        self,
        events: Sequence[Event],
        *,
        checkpoint: bytes | None = None,
        notes: Mapping[str, bytes | None] = MappingProxyType({}),
        is_guarded: bool = False,
    ) -> Draft:
        """Prepare what `emit` would commit, for `say`; the checkpoint must have been read before.

        Args:
            events: As in `emit`.
            checkpoint: As in `emit`.
            notes: As in `emit`.
            is_guarded: The checkpoint by itself keeps these events from being said twice, so their
                ids need not be looked up.
        """
        puts: list[Put] = []
        deletes: list[Delete] = []
        for name, note in notes.items():
            key = pack("note", self.stream, name.encode(errors="surrogateescape"))
            if note is None:
                deletes.append(Delete(Space.META, key))
            else:
                puts.append(Put(Space.META, key, note))
        appends = self._appends(events, by_id=not is_guarded)
        return Draft(self, appends, checkpoint, tuple(puts), tuple(deletes))

    def _appends(self, events: Sequence[Event], *, by_id: bool) -> tuple[Append, ...]:
        partitions = self.broker.stream(self.stream).partitions
        groups: dict[int, list[Event]] = {}
        for event in events:
            # Events without a key keep their order: all go to one partition.
            number = 0 if event.key is None else partition_of(event.key, partitions)
            groups.setdefault(number, []).append(event)
        return tuple(
            Append(
                self.stream,
                number,
                len(chosen),
                encode_events(chosen),
                ids=tuple(event.id or "" for event in chosen)
                # Ids cost a look-up in the dedupe window (ADR 0010): none are sent where no event
                # has one.
                if by_id and any(event.id for event in chosen)
                else None,
            )
            for number, chosen in groups.items()
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """Events that a source is about to append, and the state that is stored with them."""

    appender: SourceAppender
    appends: tuple[Append, ...]
    checkpoint: bytes | None = None
    puts: tuple[Put, ...] = ()
    deletes: tuple[Delete, ...] = ()

    @property
    def row(self) -> bytes | None:
        """The checkpoint once it is said."""
        return self.appender.row if self.checkpoint is None else self.checkpoint


async def say(drafts: Sequence[Draft]) -> None:
    """Say all of it in one change, or nothing; drafts of different appenders of one node.

    Raises:
        Fenced: Another node has moved one of the checkpoints; nothing was said.
        DiskFull, Overloaded, Unavailable: As `Storage.apply`; nothing was remembered.
    """
    commit = drafts[0].appender.commit
    checks: list[Check] = []
    puts: list[Put] = []
    for draft in drafts:
        appender, row = draft.appender, draft.row
        # Checked even where the checkpoint does not change: another node may have moved it, and
        # read the same events.
        checks.append(Check(Space.META, appender.key, appender.row, fence=True))
        # An unchanged row is not written again: many looks see nothing.
        if row is not None and row != appender.row:
            puts.append(Put(Space.META, appender.key, row))
        puts += draft.puts
    deletes = tuple(delete for draft in drafts for delete in draft.deletes)
    appends = tuple(append for draft in drafts for append in draft.appends)
    try:
        await commit(Change(tuple(checks), tuple(puts), deletes, appends))
    except (Fenced, Conflict) as error:
        streams = ", ".join(f"`{draft.appender.stream}`" for draft in drafts[:NAMED])
        # Both mean the same to a source: its checkpoint is stale, and it must read it again.
        raise Fenced(f"another node feeds {streams}") from error
    for draft in drafts:
        # Only after the commit: a failed one leaves the row that the next check must still find.
        draft.appender.row = draft.row


def checkpoint_key(stream: str) -> bytes:
    """The key of the checkpoint of a stream's source, in `Space.META`."""
    return pack("source", stream)


def open_checkpoint(row: bytes, stream: str, decode: Callable[[bytes], T]) -> T:
    """Decode the checkpoint of a stream's source.

    Raises:
        Corrupt: The row is not of the type that `decode` opens.
    """
    try:
        return decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the checkpoint of `{stream}` cannot be read: {error}") from error


class Source(Protocol):
    """Brings events in until it is cancelled."""

    async def run(self, appender: SourceAppender) -> None:
        """Watch, and emit. Raising means: begin again after a pause.

        Each look that succeeds ends with `appender.works()`, whether it saw something or not.

        Raises:
            Misuse: It can never work as configured; the message says why and what to change.
        """
        ...
