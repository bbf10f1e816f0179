"""Pulsar topics by an exclusive durable subscription, with pulsar-client.

Only started against its library so far, never against a server: see `docs/reference/triggers.md`.
Message ids name a place in the ledger and are never used twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.foreign import PulsarTopic
from headrace.triggers.foreign.base import Message, Surroundings, address_of, lacking

try:
    import pulsar
except ImportError as error:
    raise lacking("pulsar", error) from error

WAIT_MS = 500
PATIENCE_S = 15


class PulsarSource:
    """One exclusive consumer. Calls that wait run in a thread."""

    def __init__(self, trigger: PulsarTopic, around: Surroundings) -> None:
        self._trigger = trigger
        self._name = trigger.subscription or around.name
        self._client: pulsar.Client | None = None
        self._consumer: pulsar.Consumer | None = None

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect and subscribe."""
        try:
            await asyncio.to_thread(self._subscribe)
        except pulsar.PulsarException as error:
            raise self._lost(error) from error
        return places

    async def receive(self, limit: int) -> Sequence[Message[pulsar.MessageId]]:
        """What has arrived, or nothing after half a second."""
        try:
            found = await asyncio.to_thread(self._take, limit)
        except pulsar.PulsarException as error:
            raise self._lost(error) from error
        return [self._message(each) for each in found]

    async def acknowledge(self, messages: Sequence[Message[pulsar.MessageId]]) -> None:
        """Acknowledge each by itself."""
        try:
            await asyncio.to_thread(self._acknowledge, [each.receipt for each in messages])
        except pulsar.PulsarException as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        """Hang up; what was not acknowledged is delivered again."""
        client, self._client, self._consumer = self._client, None, None
        if client is not None:
            await asyncio.to_thread(client.shutdown)

    def _subscribe(self) -> None:
        trigger = self._trigger
        begin = pulsar.InitialPosition
        self._client = pulsar.Client(
            trigger.url,
            operation_timeout_seconds=PATIENCE_S,
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
                found.append(self._open.receive(timeout_millis=1))
        except pulsar.Timeout:
            pass
        return found

    def _acknowledge(self, receipts: Sequence[pulsar.MessageId]) -> None:
        for receipt in receipts:
            self._open.acknowledge(receipt)

    def _message(self, found: pulsar.Message) -> Message[pulsar.MessageId]:
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
        return Message(event, receipt, mark=mark)

    @property
    def _where(self) -> str:
        return f"Pulsar topic `{self._trigger.topic}` at {address_of(self._trigger.url)}"

    def _lost(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._where} cannot be reached: {error}")
