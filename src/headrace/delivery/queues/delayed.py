"""Messages that may not be received yet: they are kept beside the log, and appended when due.

So a message that waits holds up nobody, however many there are, and a position never has to leap
over it. In come appends to queues; out go those that may land at once, and those for later. The row
goes and the message comes in one change, so neither a crash nor a second node doubles it. Ids are
judged when a message is taken, by the log (`Ledger.stage`), and not again when it is due; so is what
takes a message back, which the log finds by its id as long as it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from msgspec.structs import replace

from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.randomness import Entropy
from headrace.environment.wait_until import wait_until
from headrace.model.due_time import wait_of
from headrace.model.effects import Change, Check, Space
from headrace.model.errors import Conflict, Fenced, HeadraceError, Invalid, Unavailable
from headrace.model.event import Event
from headrace.model.flow_control import Priority
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_PRIORITY
from headrace.model.record import NO_EVENTS, Append, decode_events, encode_events
from headrace.storage.kv.base import Applied, Storage, scan_pages
from headrace.storage.kv.keys import after
from headrace.storage.log.base import Broker
from headrace.storage.log.delayed_messages import BY_DUE, MAX_ROW, due_key, due_of, gone, opened

MICROS = 1_000_000
PAGE = 500
PAUSE_S = 0.5

Part = tuple[Append, Sequence[int]]
"""What lands, or waits, as one; and which of the events it is."""


class DelayedMessages:
    """One per node; `run` is its task."""

    def __init__(
        self,
        *,
        storage: Storage,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._storage = storage
        self._broker = broker
        self._clock = clock
        self._on_failure = on_failure
        self._token = entropy.integer(62)
        self._number = 0
        self._woken = asyncio.Event()
        self._stuck: set[bytes] = set()

    def wake(self) -> None:
        """A row may have been written."""
        self._woken.set()

    def held_back(self, spec: StreamSpec, append: Append) -> tuple[Part, ...]:
        """The append, cut into what may land at once and what is `later` (with its row's key).

        Raises:
            Invalid: A message asks for a delay or a priority that cannot be, or what is to wait, or
                is taken back, is an event of a stream.
        """
        if spec.queue is None:
            if append.kind:
                raise Invalid(
                    f"`{spec.name}` is a stream, not a queue: its events come at once, in order; "
                    f'declare it with `app.queue("{spec.name}")`'
                )
            return ((append, range(append.count)),)
        if append.kind == "cancel":
            return ((append, ()),)
        events = decode_events(append.body)
        now = self._clock.now()
        by_delay: dict[float, list[int]] = {}
        for index, event in enumerate(events):
            check_priority(event)
            wait_s = wait_of(event.headers, spec.queue.delay, now)
            by_delay.setdefault(wait_s, []).append(index)
        if list(by_delay) == [0.0]:
            return ((append, range(append.count)),)
        return tuple(
            (self._part(append, [events[index] for index in some], some, seconds, now), some)
            for seconds, indices in by_delay.items()
            for some in _rows_of(indices, seconds, append)
        )

    def _part(
        self, append: Append, events: list[Event], indices: Sequence[int], seconds: float, now: int
    ) -> Append:
        self._number += 1
        key = due_key(now + round(seconds * MICROS), now, self._number, self._token)
        return Append(
            append.stream,
            append.partition,
            len(events),
            encode_events(events),
            append.hops,
            append.origin,
            None if append.ids is None else tuple(append.ids[index] for index in indices),
            key if seconds else b"",
        )

    async def append(self, appends: Sequence[Append]) -> Applied:
        """Make appends durable, those for later among them; one position for each that landed.

        Raises:
            Unknown, TooLarge, DiskFull, Overloaded, Unavailable: As `Broker.append`.
        """
        applied = await self._broker.append(appends)
        if applied.rows:
            self.wake()
        return applied

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
            await self._storage.apply(Change(deletes=deletes))
            self._stuck.difference_update(key for key, _ in page)
            count += sum(append.count for _, append in page)
        return count

    async def cancel(self, stream: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Take back the messages of these ids that wait for their time; the ids of those that did.

        One that is due was delivered, or is about to be, and stays.

        Raises:
            Unknown: There is no such stream.
            Invalid: It is not a queue, or an id cannot be one.
            DiskFull, Overloaded, Unavailable: As `Broker.append`.
        """
        append = cancel_of(stream, ids)
        self.held_back(self._broker.stream(stream), append)
        return (await self._broker.append([append])).cancelled

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
        if not self._broker.colocated:
            await self._broker.append(appends)
            appends = ()
        await self._storage.apply(
            Change(
                checks=tuple(Check(Space.TIMERS, key, row) for key, row in rows),
                deletes=tuple(each for key, append in held for each in gone(key, append)),
                appends=appends,
            )
        )


def cancel_of(stream: str, ids: Sequence[str]) -> Append:
    """What takes messages back, on its way to the log."""
    return Append(stream, 0, 0, NO_EVENTS, ids=tuple(ids), kind="cancel")


def _rows_of(indices: Sequence[int], seconds: float, append: Append) -> Iterator[Sequence[int]]:
    """The events of one row each: few, where one of them may be taken back by its id."""
    size = MAX_ROW if seconds and append.ids is not None else len(indices)
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def check_priority(event: Event) -> None:
    """Pass, where the message goes ahead by a number of seconds, or says nothing of it.

    Raises:
        Invalid: Its header says what cannot be.
    """
    text = (event.headers or {}).get(Priority().header)
    if text is None:
        return
    try:
        seconds = int(text)
    except ValueError:
        seconds = MAX_PRIORITY + 1
    if not -MAX_PRIORITY <= seconds <= MAX_PRIORITY:
        raise Invalid(
            f"a message has the header `priority: {text:.40}`; use whole seconds from "
            f"{-MAX_PRIORITY:,} to {MAX_PRIORITY:,}"
        )
