"""Pulsar topics by an exclusive durable subscription, with pulsar-client.

The library sends acknowledgements by and by and cannot say when they have arrived, so any number of
messages may come again: the place of the last one is kept with what was appended, and what is
before it is skipped. Its calls wait, so they run in a thread, one at a time: a client that is shut
down under a call would leave it waiting for ever.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from headrace.model.errors import Corrupt, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import PulsarTopic
from headrace.sources.foreign.base import DriverContext, ForeignMessage, address_of, lacking

try:
    import pulsar
except ImportError as error:
    raise lacking("pulsar", error) from error

T = TypeVar("T")

WAIT_MS = 500
TIMEOUT_S = 15


class PulsarPosition(NamedTuple):
    """The place of a message in its partition, and the latest time of publishing (ms) up to there."""

    ledger: int
    entry: int
    batch: int
    published: int

    @classmethod
    def at(cls, found: pulsar.Message) -> PulsarPosition:
        """The place of a message."""
        name = found.message_id()
        return cls(name.ledger_id(), name.entry_id(), name.batch_index(), found.publish_timestamp())

    @classmethod
    def of(cls, text: str) -> PulsarPosition:
        """A place as it was kept.

        Raises:
            Corrupt: It is none.
        """
        try:
            return cls(*(int(part) for part in text.split(":")))
        except (ValueError, TypeError) as error:
            raise Corrupt(f"`{text}` is not a place in a Pulsar topic") from error

    @property
    def text(self) -> str:
        """As it is kept."""
        return ":".join(str(part) for part in self)

    def is_covered_by(self, last: PulsarPosition) -> bool:
        """Return True where it is at `last` or before, in the same cluster.

        A cluster that was set up again counts from the beginning, but its clock does not.
        """
        return self[:3] <= last[:3] and self.published <= last.published


class PulsarSource:
    """One exclusive consumer."""

    def __init__(self, trigger: PulsarTopic, around: DriverContext) -> None:
        self._trigger = trigger
        self._name = trigger.subscription or around.name
        self._client: pulsar.Client | None = None
        self._consumer: pulsar.Consumer | None = None
        self._busy: asyncio.Future[Any] | None = None
        self._last: dict[str, PulsarPosition] = {}

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect and subscribe."""
        self._last = {part: PulsarPosition.of(text) for part, text in places.items()}
        try:
            await self._in_thread(self._subscribe)
        except pulsar.PulsarException as error:
            raise self._lost(error) from error
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[pulsar.MessageId]]:
        """The messages that have arrived, or none after half a second."""
        try:
            found = await self._in_thread(self._take, limit)
            fresh, known = self._fresh_and_known(found)
            if known:
                # Recognised repetitions are acknowledged at once: their first acknowledgement was
                # lost.
                await self._in_thread(self._acknowledge, known)
        except pulsar.PulsarException as error:
            raise self._lost(error) from error
        return [self._message(each, place) for each, place in fresh]

    def _fresh_and_known(
        self, found: Sequence[pulsar.Message]
    ) -> tuple[list[tuple[pulsar.Message, PulsarPosition]], list[pulsar.MessageId]]:
        """Those that were not handed over before, with what to remember; and the names of the others."""
        fresh: list[tuple[pulsar.Message, PulsarPosition]] = []
        known: list[pulsar.MessageId] = []
        for each in found:
            part, place = each.topic_name(), PulsarPosition.at(each)
            last = self._last.get(part)
            if last is not None and place.is_covered_by(last):
                known.append(each.message_id())
                continue
            if last is not None:
                place = place._replace(published=max(place.published, last.published))
            self._last[part] = place
            fresh.append((each, place))
        return fresh, known

    async def acknowledge(self, messages: Sequence[ForeignMessage[pulsar.MessageId]]) -> None:
        """Acknowledge each by itself."""
        try:
            await self._in_thread(self._acknowledge, [each.receipt for each in messages])
        except pulsar.PulsarException as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        """Hang up; what was not acknowledged is delivered again."""
        if self._busy is not None:
            # Its caller may have been cancelled; every call ends by its own timeout.
            await asyncio.wait((self._busy,))
        client, self._client, self._consumer = self._client, None, None
        if client is not None:
            await asyncio.to_thread(client.shutdown)

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        """Have the library do something in a thread."""
        running: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(
            None, functools.partial(call, *args)
        )
        self._busy = running
        # A thread cannot be cancelled: the call goes on, and `close` must find it and wait.
        return await asyncio.shield(running)

    def _subscribe(self) -> None:
        trigger = self._trigger
        begin = pulsar.InitialPosition
        self._client = pulsar.Client(
            trigger.url,
            operation_timeout_seconds=TIMEOUT_S,
            # The library would log every connection at level INFO.
            logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error),
        )
        self._consumer = self._client.subscribe(
            trigger.topic,
            self._name,
            consumer_type=pulsar.ConsumerType.Exclusive,
            receiver_queue_size=trigger.in_flight,
            initial_position=begin.Earliest if trigger.start == "earliest" else begin.Latest,
        )

    @property
    def _open(self) -> pulsar.Consumer:
        if self._consumer is None:
            raise Unavailable(f"{self._where} is not connected")
        return self._consumer

    def _take(self, limit: int) -> list[pulsar.Message]:
        found: list[pulsar.Message] = []
        try:
            found.append(self._open.receive(timeout_millis=WAIT_MS))
            while len(found) < limit:
                # Only what has arrived already: waiting longer would delay the message that is
                # there.
                found.append(self._open.receive(timeout_millis=1))
        except pulsar.Timeout:
            pass
        return found

    def _acknowledge(self, receipts: Sequence[pulsar.MessageId]) -> None:
        for receipt in receipts:
            self._open.acknowledge(receipt)

    def _message(
        self, found: pulsar.Message, place: PulsarPosition
    ) -> ForeignMessage[pulsar.MessageId]:
        receipt = found.message_id()
        mark = f"{found.topic_name()}/{receipt}"
        event = Event(
            found.data(),
            key=found.partition_key() or None,
            time=(found.event_timestamp() or found.publish_timestamp()) * 1_000,
            id=mark,
            headers=dict(found.properties()) or None,
            source=f"pulsar/{self._trigger.topic}",
        )
        return ForeignMessage(event, receipt, mark=mark, place=(found.topic_name(), place.text))

    @property
    def _where(self) -> str:
        return f"Pulsar topic `{self._trigger.topic}` at {address_of(self._trigger.url)}"

    def _lost(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._where} cannot be reached: {error}")
