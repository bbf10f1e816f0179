"""A queue and programs outside that receive from it: some are slow, forget, refuse, ask for longer.

In: a planned queue. Out: a journal of every question with when it was asked and answered. Nothing is
judged here; `tests/auditor/queues.py` does.
"""

from __future__ import annotations

import asyncio
from random import Random  # noqa: TID251 - the consumers' own chance, from the seed
from typing import Any

import msgspec

from headrace.delivery.queues.external_consumers import LeasedMessage
from headrace.model.effects import Change, Space
from headrace.model.errors import HeadraceError, Unavailable
from headrace.model.event import Event
from headrace.sdk.app import App
from headrace.simulation.scenes.base import APP, WINDOW_S, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.hosts import HostedNode
from headrace.topology.external_consumers import consumer_name

QUEUE = "jobs"
GROUP = consumer_name(APP, QUEUE)
QUIET_S = 12.0
DAY_S = 86_500.0
ENDS_S = 12.0


class PlannedMessage(msgspec.Struct, frozen=True):
    """A message to be sent; `delay` None leaves it to the queue."""

    number: int
    key: str | None
    priority: int
    delay: float | None


class PlannedQueue(msgspec.Struct, frozen=True, tag="queue"):
    """A queue, what is sent to it, and who receives.

    Attributes:
        sends: Moments, with what is sent then.
        consumers: How many programs receive.
        most: How many messages each asks for at once.
        temper: How likely a consumer forgets, refuses, is too late, or asks for longer.
        poison: Messages that are always refused, until the end.
        redrive: When an operator redrives the dead letters; 0 is never.
    """

    partitions: int
    fifo: bool
    visibility: float
    max_receives: int
    delay: float
    sends: tuple[tuple[float, tuple[PlannedMessage, ...]], ...]
    consumers: int
    most: int
    temper: dict[str, float]
    poison: frozenset[int]
    redrive: float


def draw_queue(chance: Random) -> PlannedQueue:
    """A queue."""
    fifo = chance.random() < 0.5
    keys = [f"g{number}" for number in range(chance.choice((1, 2, 3)))]
    delays = chance.choice(((None,), (None,), (None, 0.0, 0.5, 3.0)))
    ahead = chance.choice(((0,), (0, 0, 5, -5, 60)))
    numbers = range(chance.choice((3, 6, 10, 16)))
    messages = [
        PlannedMessage(
            number,
            chance.choice(keys) if fifo or chance.random() < 0.5 else None,
            chance.choice(ahead),
            chance.choice(delays),
        )
        for number in numbers
    ]
    sends, at = [], 0.0
    while messages:
        size = chance.choice((1, 2, 5, 16))
        group, messages = tuple(messages[:size]), messages[size:]
        sends.append((at, group))
        at += chance.choice((0.0, chance.uniform(0.0, 2.0)))
    share = chance.choice((0.0, 0.0, 0.2))
    return PlannedQueue(
        partitions=chance.choice((1, 1, 2, 3)),
        fifo=fifo,
        visibility=chance.choice((0.5, 1.0, 2.0)),
        max_receives=chance.choice((1, 2, 3, 20)),
        delay=chance.choice((0.0, 0.0, 0.7)),
        sends=tuple(sends),
        consumers=chance.choice((1, 1, 2, 3)),
        most=chance.choice((1, 2, 10)),
        temper={
            what: chance.choice((0.0, 0.1, 0.3)) for what in ("forget", "refuse", "late", "extend")
        },
        poison=frozenset(number for number in numbers if chance.random() < share),
        redrive=chance.choice((0.0, 0.0, 5.0)),
    )


def crowded(planned: PlannedQueue, chance: Random) -> PlannedQueue:
    """The queue with more messages than a page of dead letters, all of which die at first."""
    numbers = range(chance.choice((51, 70, 120)))
    messages = tuple(PlannedMessage(number, None, 0, None) for number in numbers)
    return msgspec.structs.replace(
        planned,
        fifo=False,
        delay=0.0,
        sends=((0.0, messages),),
        most=10,
        max_receives=1,
        poison=frozenset(numbers),
        redrive=0.0,
    )


class QueueScene:
    """The queue, played."""

    kind = "queue"

    def __init__(self, planned: PlannedQueue) -> None:
        self.planned = planned
        self.journal: list[list[Any]] = []
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare the queue."""
        self._stage = stage
        planned = self.planned
        app.queue(
            QUEUE,
            partitions=planned.partitions,
            fifo=planned.fifo,
            delay=planned.delay,
            visibility=planned.visibility,
            max_receives=planned.max_receives,
            dedupe_window=WINDOW_S,
        )

    async def perform(self) -> None:
        """Send and receive for a while."""
        consumers = (self._consume(Random(self._draw())) for _ in range(self.planned.consumers))
        await asyncio.gather(self._send(), self._operate(), *consumers)

    async def finish(self) -> None:
        """Receive and acknowledge until nothing comes any more; redrive what is dead, once."""
        await self._empty()
        if self._stage.is_skewed:
            # A lease ends by the wall clock.
            await self._stage.clock.sleep(DAY_S)
            await self._empty()
        await self._redrive()
        await self._empty()

    async def _empty(self) -> None:
        last = self._stage.clock.monotonic()
        while self._stage.clock.monotonic() - last < QUIET_S:
            for message in await self._receive(10):
                last = self._stage.clock.monotonic()
                await self._say("ack", message)
            await self._stage.clock.sleep(1.0)

    def _draw(self) -> int:
        return self._stage.chance.getrandbits(32)

    # --- the programs outside ---------------------------------------------------------------

    async def _send(self) -> None:
        for at, messages in self.planned.sends:
            await self._stage.wait_until(at)
            began = self._now()
            await self._stage.publish(QUEUE, [_fact(message) for message in messages])
            numbers = [message.number for message in messages]
            self.journal.append(["send", began, self._now(), numbers])

    async def _operate(self) -> None:
        if self.planned.redrive:
            await self._stage.wait_until(self.planned.redrive)
            await self._redrive()

    async def _redrive(self) -> None:
        async def request(node: HostedNode) -> int:
            return await node.services.queues.redrive(QUEUE)

        self.journal.append(["redrive", self._now()])
        await self._stage.insist(request)

    async def _consume(self, chance: Random) -> None:
        handling: list[asyncio.Task[None]] = []
        while self._stage.clock.monotonic() < ENDS_S:
            messages = await self._receive(self.planned.most)
            for message in messages:
                work = self._handle(message, Random(chance.getrandbits(32)))
                handling.append(self._stage.lives.loop.create_task(work))
            await self._stage.clock.sleep(chance.uniform(0.05, 0.4))
        await asyncio.gather(*handling)

    async def _handle(self, message: LeasedMessage, chance: Random) -> None:
        """Follow one message with the consumer that received it."""
        sleep, visibility = self._stage.clock.sleep, self.planned.visibility
        number = msgspec.json.decode(message.event.value)["n"]
        moods = [mood for mood, odds in self.planned.temper.items() if chance.random() < odds]
        await sleep(visibility * chance.uniform(0.0, 0.7))
        if "refuse" in moods or number in self.planned.poison:
            await self._say("nack", message, chance.choice((0.0, 0.0, 0.3, 2.0)))
            return
        if "forget" in moods:
            return
        if "extend" in moods:
            await self._say("extend", message, visibility * 2)
            await sleep(visibility * 1.2)
        if "late" in moods:
            await sleep(visibility * 1.5)
        await self._say("ack", message)

    async def _receive(self, most: int) -> list[LeasedMessage]:
        began = self._now()
        try:
            found = await self._stage.ask(
                lambda node: node.supervisor.queues.receive(GROUP, most=most, wait=0.05)
            )
        except Unavailable:
            return []
        if found:
            received = [[*_place(one), one.attempt, one.until, one.receipt] for one in found]
            self.journal.append(["receive", began, self._now(), most, received])
        return found

    async def _say(self, what: str, message: LeasedMessage, amount: float = 0.0) -> None:
        def request(node: HostedNode) -> Any:
            queues = node.supervisor.queues
            match what:
                case "ack":
                    return queues.acknowledge(GROUP, message.receipt)
                case "nack":
                    return queues.refuse(GROUP, message.receipt, delay=amount)
                case _:
                    return queues.extend(GROUP, message.receipt, amount)

        began = self._now()
        answer: bool | None = None
        try:
            answer = await self._stage.ask(request)
        except HeadraceError:
            answer = None
        self.journal.append(
            [what, began, self._now(), [*_place(message), message.receipt], amount, answer]
        )

    # --- what is seen -----------------------------------------------------------------------

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Note what died and what was redriven."""
        put = [(one.key, one.value) for one in change.puts if one.space is Space.DEAD]
        gone = [one.key for one in change.deletes if one.space is Space.DEAD]
        if put or gone:
            self.journal.append(["dead", self._now(), put, gone])

    def _now(self) -> int:
        return self._stage.clock.now()

    def account(self) -> dict[str, Any]:
        """The journal, and what the log and the store hold."""
        planned, lives = self.planned, self._stage.lives
        return {
            "group": GROUP,
            "stream": QUEUE,
            "fifo": planned.fifo,
            "max_receives": planned.max_receives,
            "delays": {
                each.number: planned.delay if each.delay is None else each.delay
                for _, messages in planned.sends
                for each in messages
            },
            "priorities": {
                each.number: each.priority for _, messages in planned.sends for each in messages
            },
            "journal": self.journal,
            "log": lives.log_of(QUEUE),
            "appended": lives.appended_to(QUEUE),
            "positions": lives.rows_of(Space.POSITIONS),
            "dead": lives.rows_of(Space.DEAD),
            "calm": self._stage.calm,
            "deaths": len(lives.deaths),
            "may_conflict": self._stage.may_conflict,
        }


def _fact(message: PlannedMessage) -> Event:
    headers = {"headrace-priority": str(message.priority)} if message.priority else {}
    if message.delay is not None:
        headers["headrace-delay"] = str(message.delay)
    value = b'{"n":%d}' % message.number
    return Event(value, message.key, 0, f"job{message.number}", headers or None)


def _place(message: LeasedMessage) -> tuple[int, int]:
    return message.position.partition, message.position.offset
