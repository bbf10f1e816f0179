"""Delayed messages: stored in rows next to the log, and appended when they are due.

So a waiting message delays no other, and no position has to skip it. In: appends to queues. Out:
parts that are due now, and rows for the others. One change deletes the row and appends the message,
so neither a crash nor a second node duplicates it. The log checks ids when it accepts a message
(`Ledger.stage`), and not again when the message is due; it also finds a message by its id to cancel
it while it waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from msgspec.structs import replace

from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.delayed_appends import MICROS, DelayedAppends
from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.wait_until import wait_until
from headrace.model.effects import Change, Check, Space
from headrace.model.errors import Conflict, Fenced, HeadraceError, Unavailable
from headrace.model.record import NO_EVENTS, Append
from headrace.storage.kv.base import scan_pages
from headrace.storage.kv.keys import after
from headrace.storage.log.base import Broker
from headrace.storage.log.delayed_messages import BY_DUE, due_of, gone, opened

PAGE = 500
PAUSE_S = 0.5


class DelayedMessages:
    """One per node; `run` is its task.

    Attributes:
        appends: Splits an append into parts that are due now and later.
    """

    def __init__(
        self,
        *,
        committer: Committer,
        broker: Broker,
        clock: Clock,
        appends: DelayedAppends,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._committer = committer
        self._storage = committer.storage
        self._broker = broker
        self._clock = clock
        self.appends = appends
        self._on_failure = on_failure
        self._woken = committer.delayed
        self._stuck: set[bytes] = set()

    # --- operators' requests ----------------------------------------------------------------

    async def waiting(self, stream: str | None = None) -> AsyncIterator[tuple[bytes, int, Append]]:
        """Yield the rows of a queue (or of all), soonest first: key, due time and append."""
        async for page in scan_pages(
            self._storage, Space.TIMERS, BY_DUE, after(BY_DUE), limit=PAGE
        ):
            for key, row in page:
                append = opened(row)
                if stream is None or append.stream == stream:
                    yield key, due_of(key), append

    async def forget(self, stream: str) -> int:
        """Delete every waiting message of the queue; return how many there were.

        Messages that are appended meanwhile are not among them.
        """
        count = 0
        rows = [(key, append) async for key, _, append in self.waiting(stream)]
        for start in range(0, len(rows), PAGE):
            page = rows[start : start + PAGE]
            deletes = tuple(each for key, append in page for each in gone(key, append))
            await self._committer.commit(Change(deletes=deletes))
            self._stuck.difference_update(key for key, _ in page)
            count += sum(append.count for _, append in page)
        return count

    async def cancel(self, stream: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Cancel the waiting messages of these ids; return the ids of those that waited.

        A message that is due was delivered, or is about to be, and stays.

        Raises:
            Unknown: There is no such stream.
            Invalid: It is not a queue, or an id cannot be one.
            DiskFull, Overloaded, Unavailable: As `Committer.commit`.
        """
        append = cancel_of(stream, ids)
        self.appends.split(self._broker.stream(stream), append)
        return (await self._committer.commit(Change(appends=(append,)))).cancelled

    # --- due messages ----------------------------------------------------------------------

    async def run(self) -> None:
        """Append due messages, for ever."""
        while True:
            # Before the scan: a message that is stored during it sets the event again.
            self._woken.clear()
            try:
                due = await self._append_due()
            # The store is unreachable: the rows are read again after a pause.
            except Unavailable:
                due = self._clock.now() + int(PAUSE_S * MICROS)
            if due is None:
                await self._woken.wait()
            else:
                await wait_until(self._clock, due, self._woken)

    async def _append_due(self) -> int | None:
        """Append a page of due messages; return when the next is due, None if none waits."""
        rows = await self._storage.scan(
            # Rows that cannot be appended lie in front: the page has to reach past them.
            Space.TIMERS,
            BY_DUE,
            after(BY_DUE),
            limit=PAGE + len(self._stuck),
        )
        rows = [row for row in rows if row[0] not in self._stuck]
        now = self._clock.now()
        due = [row for row in rows if due_of(row[0]) <= now]
        if due:
            hit("delay:before-append")
            await self._append(due)
            return now
        return due_of(rows[0][0]) if rows else None

    async def _append(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Append all of them in one change; one by one if that fails."""
        try:
            await self._append_rows(rows)
        # The result is unknown: the next turn reads which rows are left.
        except Unavailable:
            raise
        except HeadraceError as error:
            if len(rows) > 1:
                for row in rows:
                    await self._append([row])
            # A conflict means that another node has appended the message, or that it was
            # cancelled.
            elif not isinstance(error, (Conflict, Fenced)):
                # Skipped until the next start: one bad row must not stop all delayed messages.
                self._stuck.add(rows[0][0])
                self._on_failure("a delayed message cannot be appended", error)

    async def _append_rows(self, rows: list[tuple[bytes, bytes]]) -> None:
        held = [(key, opened(row)) for key, row in rows]
        # Without ids, which were recorded when the messages were accepted: the log would drop them
        # as duplicates of themselves.
        appends = tuple(replace(append, ids=None) for _, append in held)
        await self._committer.commit(
            Change(
                checks=tuple(Check(Space.TIMERS, key, row) for key, row in rows),
                deletes=tuple(each for key, append in held for each in gone(key, append)),
                appends=appends,
            )
        )


def cancel_of(stream: str, ids: Sequence[str]) -> Append:
    """Return the append that cancels messages."""
    return Append(stream, 0, 0, NO_EVENTS, ids=tuple(ids), kind="cancel")
