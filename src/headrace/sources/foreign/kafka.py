"""Kafka topics as a plain source, with confluent-kafka.

Which offsets come next stands in our own checkpoint, in one transaction with the events. Partitions
are taken by name and not by a group's assignment; the group's offsets are written for Kafka's own
tools. Only records of committed transactions are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import KafkaTopic
from headrace.sources.foreign.base import DriverContext, ForeignMessage, lacking
from headrace.sources.foreign.feed import headers_of

try:
    import confluent_kafka as kafka
except ImportError as error:
    raise lacking("kafka", error) from error

WAIT_S = 0.5
TIMEOUT_S = 15.0
ROUND_S = 60.0
"""New partitions, and re-created topics, are looked for this often."""
REFUSALS = {kafka.KafkaError._AUTHENTICATION, kafka.KafkaError.SASL_AUTHENTICATION_FAILED}
PASSING = {kafka.KafkaError._ALL_BROKERS_DOWN, kafka.KafkaError._TRANSPORT}


class KafkaSource:
    """One reader of every partition of one topic. Calls that wait run in a thread."""

    def __init__(self, trigger: KafkaTopic, around: DriverContext) -> None:
        self._trigger = trigger
        self._clock = around.clock
        self._group = trigger.group or around.name
        self._consumer: kafka.Consumer | None = None
        self._taken: set[int] = set()
        self._next: dict[int, int] = {}
        """Where each partition is read on, as far as that is known."""
        self._looked = 0.0
        self._refused = ""

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Find the partitions, and where to begin in each."""
        settings = {
            "bootstrap.servers": self._trigger.servers,
            "group.id": self._group,
            # Offsets are committed after the append, by hand; librdkafka would commit what it
            # merely handed out.
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Records of an aborted transaction must never reach a function.
            "isolation.level": "read_committed",
            # For offsets that retention has taken meanwhile.
            "auto.offset.reset": "earliest",
            # The library's default is 64 MiB for each consumer, in memory of the node.
            "queued.max.messages.kbytes": 16_384,
            # It writes to stderr twenty times a second while no broker is there. Calls fail then, and
            # their error is reported.
            "log_level": 2,
            **self._trigger.options,
            "error_cb": self._hear,
        }
        self._refused = ""
        try:
            self._consumer = kafka.Consumer(settings)
        except (kafka.KafkaException, ValueError, TypeError) as error:
            raise Misuse(f"{self._where}: librdkafka refuses `options=`: {error}") from error
        known = dict(places)
        self._taken = set()
        self._next = {}
        await self._take(known, first=not known)
        return known

    async def receive(self, limit: int) -> Sequence[ForeignMessage[None]]:
        """The next records, or nothing after half a second."""
        if self._clock.monotonic() - self._looked > ROUND_S:
            await self._take({}, first=False)
            await self._check()
        # `consume` blocks: on the loop it would stop every other task for half a second.
        found = await asyncio.to_thread(self._open.consume, limit, WAIT_S)
        messages = []
        for record in found:
            error = record.error()
            if error is None:
                messages.append(self._message(record))
            elif error.fatal() or error.code() not in PASSING:
                raise Unavailable(f"{self._where}: {error}")
        return messages

    async def acknowledge(self, messages: Sequence[ForeignMessage[None]]) -> None:
        """Commit the group's offsets, for Kafka's tools; nothing depends on them."""
        places = dict(message.place for message in messages if message.place is not None)
        offsets = [
            kafka.TopicPartition(self._trigger.topic, int(part), int(place))
            for part, place in places.items()
        ]
        try:
            # Not awaited: our own checkpoint decides, so a lost commit only makes Kafka's tools
            # show an older offset.
            self._open.commit(offsets=offsets, asynchronous=True)
        except kafka.KafkaException as error:
            raise Unavailable(f"{self._where}: {error}") from error

    async def close(self) -> None:
        """Let go."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.to_thread(consumer.close)

    async def _take(self, places: dict[str, str], *, first: bool) -> None:
        """Begin on partitions not taken yet; where each begins is added to `places`."""
        try:
            about = await asyncio.to_thread(self._open.list_topics, self._trigger.topic, TIMEOUT_S)
        except kafka.KafkaException as error:
            # Why a server hangs up is said only to the callback, and that only to one who polls.
            await asyncio.to_thread(self._open.poll, 0)
            if self._refused:
                raise Misuse(f"{self._where} refuses access: {self._refused}") from error
            raise Unavailable(f"{self._where} cannot be reached: {error}") from error
        self._looked = self._clock.monotonic()
        topic = about.topics[self._trigger.topic]
        if topic.error is not None:
            if topic.error.code() == kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Unavailable(f"{self._where}: there is no such topic; make it")
            raise Unavailable(f"{self._where}: {topic.error}")
        chosen = []
        for number in sorted(set(topic.partitions) - self._taken):
            place = places.get(str(number))
            if place is None and first and self._trigger.start == "latest":
                # Kept at once, so that a restart does not move "latest" past what came meanwhile.
                place = places[str(number)] = str(await self._end(number))
            elif place is not None and int(place) > await self._end(number):
                # A topic re-created under an old name, and so far shorter than the old one was.
                place = None
            offset = kafka.OFFSET_BEGINNING if place is None else int(place)
            self._next[number] = max(offset, 0)
            chosen.append(kafka.TopicPartition(self._trigger.topic, number, offset))
            self._taken.add(number)
        if chosen:
            try:
                # Not `subscribe`: a rebalance would move partitions under us, while our checkpoint
                # says who reads them.
                self._open.incremental_assign(chosen)
            except kafka.KafkaException as error:
                raise Unavailable(f"{self._where}: {error}") from error

    def _hear(self, error: kafka.KafkaError) -> None:
        if error.code() in REFUSALS:
            self._refused = str(error)

    async def _check(self) -> None:
        """See that no partition is shorter than what was read of it: then the topic was re-created.

        The library may wait for ever at the old one's end; a new connection begins the new one.
        """
        for number, place in self._next.items():
            if await self._end(number) < place:
                raise Unavailable(f"{self._where} was re-created")

    async def _end(self, number: int) -> int:
        part = kafka.TopicPartition(self._trigger.topic, number)
        try:
            _, high = await asyncio.to_thread(self._open.get_watermark_offsets, part, TIMEOUT_S)
        except kafka.KafkaException as error:
            raise Unavailable(f"{self._where}: {error}") from error
        return int(high)

    def _message(self, record: kafka.Message) -> ForeignMessage[None]:
        number, offset = int(record.partition() or 0), int(record.offset() or 0)
        self._next[number] = offset + 1
        stamp = int(record.timestamp()[1])
        key = record.key()
        pairs = cast("list[tuple[str, str | bytes | None]]", record.headers() or [])
        headers = headers_of(
            (name, value.decode("utf-8", "replace") if isinstance(value, bytes) else value or "")
            for name, value in pairs
        )
        value = record.value()
        event = Event(
            b"" if value is None else bytes(value),
            key=key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key,
            time=None if stamp < 0 else stamp * 1_000,
            # With its time, so that a topic re-created under an old name is not taken for the old one.
            id=f"{self._trigger.topic}/{number}/{offset}/{stamp}",
            headers=headers,
            source=f"kafka/{self._trigger.topic}",
        )
        return ForeignMessage(event, None, place=(str(number), str(offset + 1)))

    @property
    def _open(self) -> kafka.Consumer:
        if self._consumer is None:
            raise Unavailable(f"{self._where} is not connected")
        return self._consumer

    @property
    def _where(self) -> str:
        return f"Kafka topic `{self._trigger.topic}` at `{self._trigger.servers}`"
