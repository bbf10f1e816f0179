"""Messages that may not be received yet: they are kept beside the log, and appended when due.

So a message that waits holds up nobody, however many there are, and a position never has to leap
over it. In come appends to queues; out go those that may land at once, and rows for the others. The
row goes and the message comes in one change, so neither a crash nor a second node doubles it. Ids are
judged when a message is taken, by the log (`Ledger.stage`), and not again when it is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from headrace.keepers.brokers.base import Broker
from headrace.keepers.storage.base import Applied, Storage
from headrace.keepers.storage.keys import after, pack
from headrace.model.effects import Change, Check, Delete, Space
from headrace.model.errors import Conflict, Fenced, HeadraceError, Invalid, Unavailable
from headrace.model.event import Event
from headrace.model.flow import Priority
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.policy import MAX_DELAY, MAX_PRIORITY
from headrace.model.record import Append, decode_events, encode_events
from headrace.world.calendar import SLICE_S, Calendar
from headrace.world.clock import Clock
from headrace.world.entropy import Entropy
from headrace.world.failpoints import hit

MICROS = 1_000_000
PAGE = 500
PAUSE_S = 0.5
HEADER = "delay"

_PREFIX = pack("due")
_decoder = msgspec.msgpack.Decoder(Append)


class Delays:
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
        self._storage, self._broker, self._clock = storage, broker, clock
        self._on_failure = on_failure
        self._token, self._number = entropy.integer(62), 0
        self._woken = asyncio.Event()
        self._stuck: set[bytes] = set()

    def wake(self) -> None:
        """A row may have been written."""
        self._woken.set()

    def held_back(self, spec: StreamSpec, append: Append) -> tuple[Append, ...]:
        """The append, cut into what may land at once and what is `later` (with its row's key).

        Raises:
            Invalid: A message asks for a delay or a priority that cannot be.
        """
        if spec.queue is None:
            return (append,)
        events = decode_events(append.body)
        now = self._clock.now()
        by_delay: dict[float, list[int]] = {}
        for index, event in enumerate(events):
            check_priority(event)
            by_delay.setdefault(delay_of(event, spec.queue), []).append(index)
        if list(by_delay) == [0.0]:
            return (append,)
        return tuple(
            self._part(append, [events[index] for index in indices], indices, seconds, now)
            for seconds, indices in by_delay.items()
        )

    def _part(
        self, append: Append, events: list[Event], indices: list[int], seconds: float, now: int
    ) -> Append:
        self._number += 1
        key = _PREFIX + pack(now + int(seconds * MICROS), now, self._number, self._token)
        return Append(
            append.stream, append.partition, len(events), encode_events(events), append.hops,
            append.origin,
            None if append.ids is None else tuple(append.ids[index] for index in indices),
            key if seconds else b"",
        )  # fmt: skip

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
        low: bytes = _PREFIX
        while page := await self._storage.scan(Space.TIMERS, low, after(_PREFIX), limit=PAGE):
            for key, row in page:
                append = _decoder.decode(row)
                if stream is None or append.stream == stream:
                    yield key, _due(key), append
            low = page[-1][0] + b"\x00"

    async def forget(self, stream: str) -> int:
        """Delete every message of the queue that waits for its time; how many there were.

        One that is appended meanwhile is not among them.
        """
        count = 0
        rows = [(key, append.count) async for key, _, append in self.waiting(stream)]
        for start in range(0, len(rows), PAGE):
            page = rows[start : start + PAGE]
            deletes = tuple(Delete(Space.TIMERS, key) for key, _ in page)
            await self._storage.apply(Change(deletes=deletes))
            self._stuck.difference_update(key for key, _ in page)
            count += sum(held for _, held in page)
        return count

    # --- when it is time ----------------------------------------------------------------------

    async def run(self) -> None:
        """Append what is due, for ever."""
        while True:
            self._woken.clear()
            try:
                wait = await self._turn()
            except Unavailable:
                wait = PAUSE_S
            try:
                await self._clock.timeout(self._woken.wait(), wait)
            except TimeoutError:
                continue

    async def _turn(self) -> float | None:
        """Append a page of what is due; seconds until there is more to do, None where unknown."""
        rows = await self._storage.scan(
            Space.TIMERS, _PREFIX, after(_PREFIX), limit=PAGE + len(self._stuck)
        )
        rows = [row for row in rows if row[0] not in self._stuck]
        now = self._clock.now()
        due = [row for row in rows if _due(row[0]) <= now]
        if due:
            hit("delay:before-append")
            await self._land(due)
            return 0.0
        if not rows:
            return None
        left = (_due(rows[0][0]) - now) / MICROS
        # In slices, so that a wall clock set forward is noticed soon; virtual time has no need of it.
        return left if isinstance(self._clock, Calendar) else min(left, SLICE_S)

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
        appends = tuple(_decoder.decode(row) for _, row in rows)
        if not self._broker.colocated:
            await self._broker.append(appends)
            appends = ()
        await self._storage.apply(
            Change(
                checks=tuple(Check(Space.TIMERS, key, row) for key, row in rows),
                deletes=tuple(Delete(Space.TIMERS, key) for key, _ in rows),
                appends=appends,
            )
        )


def delay_of(event: Event, queue: QueueSpec) -> float:
    """Seconds before the message may be received.

    Raises:
        Invalid: Its header says what cannot be.
    """
    text = (event.headers or {}).get(HEADER)
    if text is None:
        return queue.delay
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_DELAY:
        raise Invalid(f"a message has the header `delay: {text}`; use seconds from 0 to a year")
    return seconds


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


def _due(key: bytes) -> int:
    return int.from_bytes(key[len(_PREFIX) : len(_PREFIX) + 8], "big")
