"""RabbitMQ queues, message by message, with aio-pika.

The server has no name for a message, so a repetition is known by the publisher's `message_id`;
without one a message may be delivered twice when the node dies at the wrong moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Mapping, Sequence
from typing import Any

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event, fenced
from headrace.model.triggers.foreign import RabbitQueue
from headrace.sources.foreign.base import DriverContext, ForeignMessage, address_of, lacking

try:
    import aio_pika
    from aio_pika import exceptions as problems
    from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

    from headrace.sources.foreign.amqp_properties import be_lenient, header_text
except ImportError as error:
    raise lacking("rabbitmq", error) from error

WAIT_S = 1.0
TIMEOUT_S = 15.0
LOST = (problems.AMQPError, OSError, RuntimeError, TimeoutError)


class RabbitSource:
    """One consumer with a prefetch window."""

    def __init__(self, trigger: RabbitQueue, around: DriverContext) -> None:
        self._trigger = trigger
        self._clock = around.clock
        self._connection: AbstractConnection | None = None
        # At most `in_flight` messages: the server's prefetch limit sees to it.
        self._arrived: deque[AbstractIncomingMessage] = deque()
        self._news = asyncio.Event()
        self._why: str | None = None
        self._consumers: Container[str] = ()
        self._tag = ""

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect and consume."""
        trigger = self._trigger
        self._arrived.clear()
        self._news = asyncio.Event()
        self._why = None
        be_lenient()
        try:
            # Not `connect_robust`, which reconnects by itself and delivers into a channel whose
            # receipts are no longer valid.
            self._connection = await aio_pika.connect(trigger.url, timeout=TIMEOUT_S)
            channel = await self._connection.channel(publisher_confirms=False)
            # Before the first consumer: without a limit the server would send the whole queue into
            # our memory.
            await channel.set_qos(prefetch_count=trigger.in_flight)
            if trigger.declare:
                queue = await channel.declare_queue(trigger.queue, durable=True)
            else:
                queue = await channel.get_queue(trigger.queue, ensure=True)
            channel.close_callbacks.add(self._closed)
            self._tag = await queue.consume(self._arrive, no_ack=False)
            underlay: Any = await channel.get_underlay_channel()
            self._consumers = underlay.consumers
        except problems.ChannelNotFoundEntity as error:
            raise Unavailable(
                f"{self._where}: there is no such queue; make it, or say `declare=True`"
            ) from error
        except (problems.ProbableAuthenticationError, problems.ChannelPreconditionFailed) as error:
            raise Misuse(f"{self._where} refuses: {error}") from error
        except LOST as error:
            raise Unavailable(f"{self._where} cannot be reached: {error}") from error
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[AbstractIncomingMessage]]:
        """The messages that have arrived, or none after a second."""
        if not self._arrived and self._why is None:
            self._news.clear()
            try:
                await self._clock.timeout(self._news.wait(), WAIT_S)
            except TimeoutError:
                if self._tag not in self._consumers:
                    # The channel stays open, but the server sends it nothing any more.
                    raise Unavailable(f"{self._where} was deleted, or ended our consumer") from None
                return []
        if self._why is not None:
            raise Unavailable(f"{self._where}: the connection is lost ({self._why})")
        count = min(limit, len(self._arrived))
        return [self._message(self._arrived.popleft()) for _ in range(count)]

    async def acknowledge(
        self, messages: Sequence[ForeignMessage[AbstractIncomingMessage]]
    ) -> None:
        """Acknowledge each by itself."""
        if self._connection is None or self._why is not None:
            raise Unavailable(f"{self._where} is not connected")
        try:
            for message in messages:
                # `multiple` would also acknowledge earlier messages that are not appended yet.
                await message.receipt.ack(multiple=False)
        except LOST as error:
            raise Unavailable(f"{self._where}: the connection is lost ({error})") from error

    async def close(self) -> None:
        """Hang up; the server delivers again what was not acknowledged."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._why = "closed here"
            await connection.close()

    async def _arrive(self, message: AbstractIncomingMessage) -> None:
        self._arrived.append(message)
        self._news.set()

    def _closed(self, _channel: object, error: BaseException | None) -> None:
        if self._why is None:
            self._why = str(error) if error is not None else "closed by the server"
        self._news.set()

    def _message(self, found: AbstractIncomingMessage) -> ForeignMessage[AbstractIncomingMessage]:
        mark = ""
        if found.message_id:
            queue, sender = (
                # Both are chosen by others: without escaping, two different pairs could give one
                # mark.
                fenced(each, "/")
                for each in (self._trigger.queue, found.app_id or "")
            )
            mark = f"{queue}/{sender}/{found.message_id}"
        headers = {str(name): header_text(value) for name, value in (found.headers or {}).items()}
        if found.content_type:
            headers["content-type"] = found.content_type
        event = Event(
            found.body,
            key=found.routing_key,
            time=None if found.timestamp is None else round(found.timestamp.timestamp() * 1e6),
            id=mark or None,
            headers=headers or None,
            type=found.type,
            source=f"rabbitmq/{self._trigger.queue}",
        )
        return ForeignMessage(event, found, mark=mark)

    @property
    def _where(self) -> str:
        return f"RabbitMQ queue `{self._trigger.queue}` at {address_of(self._trigger.url)}"
