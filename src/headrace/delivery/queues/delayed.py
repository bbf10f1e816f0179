"""Messages that may not be received yet: they are kept beside the log, and appended when due.

So a message that waits holds up nobody, however many there are, and a position never has to leap
over it. In come appends to queues; out go those that may land at once, and those for later. The row
goes and the message comes in one change, so neither a crash nor a second node doubles it. Ids are
judged when a message is taken, by the log (`Ledger.stage`), and not again when it is due; so is what
takes a message back, which the log finds by its id as long as it waits.
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
        appends: What cuts an append into what lands at once and what waits.
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

    # --- what an operator asks ----------------------------------------------------------------

    async def waiting(self, stream: str | None = None) -> AsyncIterator[tuple[bytes, int, Append]]:
        """The rows of a queue (or of all), soonest first: key, when it is due, and what is appended."""
        async for page in scan_pages(
            self._storage, Space.TIMERS, BY_DUE, after(BY_DUE), limit=PAGE
        ):
            for key, row in page:
                append = opened(row)
                if stream is None or append.stream == stream:
                    yield key, due_of(key), append

    async def forget(self, stream: str) -> int:
        """Delete every message of the queue that waits for its time; how many there were.

        One that is appended meanwhile is not among them.
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
        """Take back the messages of these ids that wait for their time; the ids of those that did.

        One that is due was delivered, or is about to be, and stays.

        Raises:
            Unknown: There is no such stream.
            Invalid: It is not a queue, or an id cannot be one.
            DiskFull, Overloaded, Unavailable: As `Committer.commit`.
        """
        append = cancel_of(stream, ids)
        self.appends.split(self._broker.stream(stream), append)
        return (await self._committer.commit(Change(appends=(append,)))).cancelled

    # --- when it is time ----------------------------------------------------------------------

    async def run(self) -> None:
        """Append what is due, for ever."""
        while True:
            self._woken.clear()
            try:
                due = await self._turn()
            except Unavailable:
                due = self._clock.now() + int(PAUSE_S * MICROS)
            if due is None:
                await self._woken.wait()
            else:
                await wait_until(self._clock, due, self._woken)

    async def _turn(self) -> int | None:
        """Append a page of what is due; when there is more to do, None where nothing waits."""
        rows = await self._storage.scan(
            Space.TIMERS, BY_DUE, after(BY_DUE), limit=PAGE + len(self._stuck)
        )
        rows = [row for row in rows if row[0] not in self._stuck]
        now = self._clock.now()
        due = [row for row in rows if due_of(row[0]) <= now]
        if due:
            hit("delay:before-append")
            await self._land(due)
            return now
        return due_of(rows[0][0]) if rows else None

    async def _land(self, rows: list[tuple[bytes, bytes]]) -> None:
        """All of them in one change; one by one where that does not go."""
        try:
            await self._move(rows)
        except Unavailable:
            raise
        except HeadraceError as error:
            if len(rows) > 1:
                for row in rows:
                    await self._land([row])
            elif not isinstance(error, (Conflict, Fenced)):
                self._stuck.add(rows[0][0])
                self._on_failure("a delayed message cannot be appended", error)

    async def _move(self, rows: list[tuple[bytes, bytes]]) -> None:
        held = [(key, opened(row)) for key, row in rows]
        appends = tuple(replace(append, ids=None) for _, append in held)
        await self._committer.commit(
            Change(
                checks=tuple(Check(Space.TIMERS, key, row) for key, row in rows),
                deletes=tuple(each for key, append in held for each in gone(key, append)),
                appends=appends,
            )
        )


def cancel_of(stream: str, ids: Sequence[str]) -> Append:
    """What takes messages back, on its way to the log."""
    return Append(stream, 0, 0, NO_EVENTS, ids=tuple(ids), kind="cancel")
