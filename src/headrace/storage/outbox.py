"""Appends to a log that keeps its own disk: rows of the change that makes them, then published in order.

In: the appends of changes, as the store's `Appender`. Each becomes a row of its change, so it lands
together with state, positions and marks, or not at all; ids are judged there too. Out: the same appends
in the log, each once: one task publishes the rows, oldest first, and the log remembers with what it
takes up to which number it has it (ADR 0044). It returns no positions: what has landed has none yet.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.model.effects import Change, Check, Delete, Put, Space
from headrace.model.errors import Conflict, Overloaded, TooLarge
from headrace.model.record import Append
from headrace.storage.kv.base import Applied, Storage, scan_pages
from headrace.storage.kv.change_checks import Look
from headrace.storage.kv.keys import after, pack
from headrace.storage.kv.log_appends import Statement
from headrace.storage.log.append_checks import check_append, without_known
from headrace.storage.log.base import LogWriter, RemoteLog
from headrace.storage.log.catalog import unknown_partition
from headrace.storage.log.delayed_messages import WaitingMessages
from headrace.storage.state.rows import decode_row, encode_row

PAGE: Final = 500
PAGE_BYTES: Final = 16 << 20
"""What is published in one step, at most; a single append may be larger."""
# While a log is away its rows take disk space, so their number is bounded (ADR 0044).
MAX_WAITING: Final = 10_000
"""Appends that wait for the log; while there are more, changes that append are refused."""
_WRITERS: Final = pack("outbox-writers")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Append).decode


class LogOutbox:
    """One node's outbox to a remote log; attached to its store. `run` is its task.

    Every opening writes under a new number, higher than all before it. Rows of an earlier opening are
    published first, so events keep their order when a partition changes hands: its new owner has landed
    nothing of it before the former owner's last row.
    """

    def __init__(
        self, storage: Storage, log: RemoteLog, *, clock: Clock, writer: int, waiting: int
    ) -> None:
        self._storage = storage
        self._log = log
        self._clock = clock
        self._writer = writer
        self._number = 0
        self._waiting = waiting
        self._staged = 0
        self._woken = asyncio.Event()

    @classmethod
    async def open(cls, storage: Storage, log: RemoteLog, *, clock: Clock) -> LogOutbox:
        """Take the next writer's number; what waits from before is published by `run`.

        Raises:
            DiskFull, Overloaded, Unavailable: As `Storage.apply`.
        """
        writer = await _next_writer(storage)
        waiting = 0
        # Counted once and kept up to date afterwards: a count at each change would read all rows.
        async for page in scan_pages(storage, Space.OUTBOX, b"", limit=PAGE):
            waiting += len(page)
        return cls(storage, log, clock=clock, writer=writer, waiting=waiting)

    # --- the store's appender ---------------------------------------------------------------

    def stage(self, appends: Sequence[Append], look: Look) -> Applied:
        """The rows of one change's appends; see `Appender`.

        Raises:
            Overloaded: Too much waits for the log already.
        """
        # All are checked before any is staged, so that a refused change has used no numbers and no
        # ids.
        for append in appends:
            spec = self._log.stream(append.stream)
            if not 0 <= append.partition < spec.partitions:
                raise unknown_partition(append.stream, append.partition, spec.partitions)
            check_append(append, spec)
        if self._waiting + self._staged + len(appends) > MAX_WAITING:
            raise Overloaded(
                f"{self._waiting} appends wait for the log, which is away or slow; "
                "try again once it takes them"
            )
        # Through `look`: an id that an earlier change of the same group brought is known already.
        ids, waiting = _KnownIds(look, self._clock.now()), WaitingMessages(look)
        puts: list[Put] = []
        cancelled: list[str] = []
        duplicates = later = 0
        for append in appends:
            window = self._log.stream(append.stream).dedupe_window
            if append.kind == "cancel":
                found = [id for id in append.ids or () if waiting.take_back(append.stream, id)]
                # A message that never arrived must not block its own repetition as a duplicate.
                ids.forget(append.stream, found)
                cancelled += found
                continue
            kept = append
            if append.ids is not None and (window > 0 or append.later):
                known = ids.known(append, waiting if append.later else None)
                kept, fresh = without_known(append, known)
                duplicates += append.count - kept.count
                if window > 0:
                    ids.keep(append.stream, fresh, window)
            if not kept.count:
                continue
            if append.later:
                later += kept.count
                waiting.keep(kept, append.later)
            else:
                self._number += 1
                # The ids have been checked here, and the log would keep them for nothing.
                row = _encode(replace(kept, ids=None))
                puts.append(Put(Space.OUTBOX, pack(self._writer, self._number), row))
        # Not counted in `_waiting` yet: a group that is rolled back only forgets what it staged.
        self._staged += len(puts)
        rows = (*puts, *waiting.rows, *ids.rows)
        # No positions: offsets are given by the log, when the rows are published (ADR 0044).
        return Applied((None,) * len(appends), duplicates, rows, later, tuple(cancelled))

    def flush(self) -> list[Statement]:
        """Return no statements: the rows are part of the changes."""
        return []

    def landed(self) -> None:
        """Publish what was staged: it is durable now."""
        self._waiting += self._staged
        self._staged = 0
        self._woken.set()

    def dropped(self) -> None:
        """Forget what was staged: it did not land; its numbers are not used again."""
        self._staged = 0

    # --- into the log -----------------------------------------------------------------------

    async def run(self) -> None:
        """Publish what waits, for ever; to be restarted after an error.

        Raises:
            Fenced: A later writer has taken over what this one published.
            Unavailable: The log or the store is away.
        """
        writers: dict[int, LogWriter] = {}
        while True:
            # Before the page is read: rows that land in between set it again, and are not missed.
            self._woken.clear()
            page = await self._page()
            # A row is published under the number it was written with: the log remembers by that
            # number how far it is.
            for id, rows in itertools.groupby(page, key=_writer_of):
                if id not in writers:
                    writers[id] = await self._log.open_writer(id)
                await self._publish(writers[id], list(rows))
            if not page:
                if not self._woken.is_set():
                    # Rows whose deletion had an unknown end have been counted until now.
                    self._waiting = 0
                await self._woken.wait()

    async def _page(self) -> list[tuple[bytes, bytes]]:
        """The oldest rows, of this writer and those before it."""
        end = after(pack(self._writer))
        try:
            return await self._storage.scan(Space.OUTBOX, b"", end, limit=PAGE, most=PAGE_BYTES)
        except TooLarge:
            # A single append may exceed PAGE_BYTES, and must not block those behind it for ever.
            return await self._storage.scan(Space.OUTBOX, b"", end, limit=1)

    async def _publish(self, writer: LogWriter, rows: list[tuple[bytes, bytes]]) -> None:
        hit("outbox:before-publish")
        # Publish, then delete: a crash in between publishes again, and the log drops what it has.
        # The other order would lose rows.
        await writer.publish([(_number_of(key), _decode(row)) for key, row in rows])
        hit("outbox:after-publish")
        await self._storage.apply(
            Change(deletes=tuple(Delete(Space.OUTBOX, key) for key, _ in rows))
        )
        # Never below 0: rows that were deleted with an unknown outcome may be counted twice.
        self._waiting = max(self._waiting - len(rows), 0)


class _KnownIds:
    """The ids that streams know, as one change leaves them: rows with an expiry.

    Args:
        look: The value at a key, as the changes before it will leave it.
        now: Microseconds since the epoch.
    """

    def __init__(self, look: Look, now: int) -> None:
        self._look = look
        self._now = now
        self._rows: dict[bytes, bytes | None] = {}

    @property
    def rows(self) -> tuple[Put | Delete, ...]:
        """The rows to write."""
        return tuple(
            Delete(Space.MARKS, key) if row is None else Put(Space.MARKS, key, row)
            for key, row in self._rows.items()
        )

    def known(self, append: Append, waiting: WaitingMessages | None) -> set[str]:
        """The append's ids that its stream knows, or that a message has which is among those `waiting`."""
        return {
            id
            for id in append.ids or ()
            if id
            and (
                self._is_known(_id_key(append.stream, id))
                or (waiting is not None and waiting.holds(append.stream, id))
            )
        }

    def keep(self, stream: str, ids: Sequence[str], seconds: float) -> None:
        """Know these for so long."""
        row = encode_row(0, b"", self._now + int(seconds * 1_000_000))
        self._rows.update((_id_key(stream, id), row) for id in ids)

    def forget(self, stream: str, ids: Sequence[str]) -> None:
        """Let each of these ids be used again."""
        self._rows.update((_id_key(stream, id), None) for id in ids)

    def _is_known(self, key: bytes) -> bool:
        row = self._rows[key] if key in self._rows else self._look(Space.MARKS, key)
        return row is not None and decode_row(row)[1] > self._now


async def _next_writer(storage: Storage) -> int:
    while True:
        row = await storage.get(Space.META, _WRITERS)
        number = 1 + (0 if row is None else int.from_bytes(row, "big"))
        put = Put(Space.META, _WRITERS, number.to_bytes(8, "big"))
        try:
            await storage.apply(Change((Check(Space.META, _WRITERS, row),), (put,)))
        # Another node has opened its outbox in between: take the number after its own.
        except Conflict:
            continue
        return number


def _writer_of(row: tuple[bytes, bytes]) -> int:
    return int.from_bytes(row[0][:8], "big")


def _number_of(key: bytes) -> int:
    return int.from_bytes(key[8:16], "big")


def _id_key(stream: str, id: str) -> bytes:
    return pack("id", stream, id)
