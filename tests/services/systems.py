"""Foreign systems as tests see them: a place to send to, and the trigger that reads it.

Each speaks to a server with the system's own client and not through our drivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.services.servers import Server, absent, missing

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.triggers.foreign import (
    ForeignTrigger,
    KafkaTopic,
    KinesisStream,
    MqttTopic,
    NatsStream,
    PulsarTopic,
    RabbitQueue,
    RedisStream,
    SqsQueue,
)
from headrace.sources.base import Source
from headrace.sources.foreign.open import open_foreign

POISON = (b"\xff\x00\xfe", b"{", b"null", b"\x80" * 200_000)
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-central-1",
}


class System:
    """A running server of one kind; `make` a fresh queue, `send` to it, read it by `trigger`."""

    script = ""
    restarts = True
    ordered = True
    poison: Sequence[bytes] = (*POISON, b"")

    def __init__(self, folder: Path) -> None:
        if reason := missing(self.script):
            absent(reason)
        self.server = Server(self.script, folder)
        self.server.start()

    def close(self) -> None:
        self.server.kill()

    @property
    def port(self) -> int:
        return self.server.port

    async def make(self) -> str:
        return f"q{uuid.uuid4().hex[:12]}"

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        raise NotImplementedError

    def trigger(self, queue: str) -> ForeignTrigger:
        raise NotImplementedError

    def source(self, trigger: ForeignTrigger) -> Source:
        """What serves the trigger, not running yet."""
        return open_foreign("app.read", trigger, clock=SystemClock(), entropy=SystemEntropy())

    async def left(self, queue: str) -> int | None:
        """How many messages are not acknowledged; None where the system does not say."""
        del queue
        return None


class Redis(System):
    script = "redis"

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        from redis import asyncio as redis

        client = redis.Redis(port=self.port)
        try:
            yield client
        finally:
            await client.aclose()

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        async with self._client() as client:
            for value in values:
                await client.xadd(queue, {"data": value, "note": "hi"})

    def trigger(self, queue: str) -> ForeignTrigger:
        return RedisStream(queue, f"redis://127.0.0.1:{self.port}")

    async def left(self, queue: str) -> int | None:
        async with self._client() as client:
            (group,) = await client.xinfo_groups(queue)
            return int(group["pending"]) + int(group["lag"] or 0)


class Nats(System):
    script = "nats"

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        import nats

        client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def make(self) -> str:
        name = await super().make()
        async with self._client() as stream:
            await stream.add_stream(name=name, subjects=[f"{name}.>"])
        return name

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        async with self._client() as stream:
            for value in values:
                await stream.publish(f"{queue}.one", value, headers={"note": "hi"})

    def trigger(self, queue: str) -> ForeignTrigger:
        return NatsStream(queue, url=f"nats://127.0.0.1:{self.port}", ack_wait=1.0)

    async def left(self, queue: str) -> int | None:
        async with self._client() as stream:
            (found,) = await stream.consumers_info(queue)
            return int(found.num_ack_pending + found.num_pending)


class Mqtt(System):
    script = "mosquitto"

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._send, queue, values)

    def _send(self, queue: str, values: Sequence[bytes]) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        for number, value in enumerate(values):
            client.publish(f"{queue}/one", value, qos=1 + number % 2).wait_for_publish(30)
        client.disconnect()
        client.loop_stop()

    def trigger(self, queue: str) -> ForeignTrigger:
        return MqttTopic(f"{queue}/#", f"mqtt://127.0.0.1:{self.port}")


class Rabbit(System):
    script = "rabbitmq"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        import aio_pika

        connection = await aio_pika.connect(self.url)
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def make(self) -> str:
        name = await super().make()
        async with self._channel() as channel:
            await channel.declare_queue(name, durable=True)
        return name

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        from aio_pika import DeliveryMode, Message

        async with self._channel() as channel:
            for value in values:
                message = Message(
                    value, message_id=uuid.uuid4().hex, delivery_mode=DeliveryMode.PERSISTENT
                )
                await channel.default_exchange.publish(message, queue)

    def trigger(self, queue: str) -> ForeignTrigger:
        return RabbitQueue(queue, self.url)

    async def left(self, queue: str) -> int | None:
        async with self._channel() as channel:
            found = await channel.declare_queue(queue, passive=True)
            return int(found.declaration_result.message_count or 0)


class Aws(System):
    """moto's server, in this process. It keeps everything in memory, so it is never restarted."""

    restarts = False
    service = ""

    def __init__(self, folder: Path) -> None:
        del folder
        if importlib.util.find_spec("moto") is None:
            absent("`moto` is not installed")
        moto = importlib.import_module("moto.server")
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._moto = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self._port = self._moto.get_host_and_port()[1]

    def close(self) -> None:
        self._moto.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def client(self) -> Any:
        from aiobotocore.session import get_session

        return get_session().create_client(self.service, endpoint_url=self.url)


class Sqs(Aws):
    service = "sqs"
    ordered = False
    # The protocol carries text, and never none of it.
    poison = (b"{", b"null", "\u00e4\u20ac\U0001f30a".encode(), b"x" * 200_000)

    async def make(self) -> str:
        name = await super().make()
        async with self.client() as client:
            await client.create_queue(QueueName=name)
        return name

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        async with self.client() as client:
            url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
            for value in values:
                await client.send_message(QueueUrl=url, MessageBody=value.decode())

    def trigger(self, queue: str) -> ForeignTrigger:
        return SqsQueue(queue, endpoint=self.url, visibility=1)

    async def left(self, queue: str) -> int | None:
        async with self.client() as client:
            url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
            found = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
            return sum(int(found["Attributes"][name]) for name in names)


class Kinesis(Aws):
    service = "kinesis"

    async def make(self) -> str:
        name = await super().make()
        async with self.client() as client:
            await client.create_stream(StreamName=name, ShardCount=2)
        return name

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        async with self.client() as client:
            for value in values:
                await client.put_record(StreamName=queue, Data=value, PartitionKey="one")

    def trigger(self, queue: str) -> ForeignTrigger:
        return KinesisStream(queue, endpoint=self.url, in_flight=50, poll=0.1)


class Kafka(System):
    script = "kafka"

    async def make(self) -> str:
        name = await super().make()
        await asyncio.to_thread(self._make, name)
        return name

    def _make(self, name: str) -> None:
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}"})
        for made in admin.create_topics([NewTopic(name, 2, 1)]).values():
            made.result(30)

    def unmake(self, name: str) -> None:
        """Delete the topic, and wait until a new one may have its name."""
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}"})
        for gone in admin.delete_topics([name]).values():
            gone.result(30)
        while name in admin.list_topics(timeout=30).topics:
            time.sleep(0.2)

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._send, queue, values)

    def _send(self, queue: str, values: Sequence[bytes]) -> None:
        from confluent_kafka import Producer

        producer = Producer(
            {"bootstrap.servers": f"127.0.0.1:{self.port}", "enable.idempotence": True}
        )
        for value in values:
            producer.produce(queue, value, key="one", headers={"note": b"hi"})
        assert producer.flush(60) == 0

    def trigger(self, queue: str) -> ForeignTrigger:
        return KafkaTopic(queue, f"127.0.0.1:{self.port}", in_flight=100)


class Pulsar(System):
    script = "pulsar"

    @property
    def url(self) -> str:
        return f"pulsar://127.0.0.1:{self.port}"

    async def send(self, queue: str, values: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._send, queue, values)

    def _send(self, queue: str, values: Sequence[bytes]) -> None:
        import pulsar

        quiet = pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
        client = pulsar.Client(self.url, operation_timeout_seconds=5, logger=quiet)
        try:
            producer = client.create_producer(queue, send_timeout_millis=5_000)
            for value in values:
                producer.send(value, properties={"note": "hi"}, partition_key="one")
        finally:
            client.shutdown()

    def trigger(self, queue: str) -> ForeignTrigger:
        return PulsarTopic(queue, self.url, in_flight=100)


SYSTEMS: dict[str, type[System]] = {
    "redis": Redis,
    "nats": Nats,
    "mqtt": Mqtt,
    "rabbitmq": Rabbit,
    "sqs": Sqs,
    "kinesis": Kinesis,
    "kafka": Kafka,
    "pulsar": Pulsar,
}
