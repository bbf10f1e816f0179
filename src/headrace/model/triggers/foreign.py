"""Foreign sources, whose events another system keeps: brokers and queues, as plain values.

Each is a trigger: written by the author, served by a driver in `triggers/foreign`, which needs the
extra of the same name (`pip install "headrace[redis]"`). A foreign source gets its acknowledgement only once
its events are on our disk. `in_flight` bounds what it may hand over without acknowledgement.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.triggers.debezium import Debezium

MAX_IN_FLIGHT = 1_000
Begin = Literal["earliest", "latest"]


class RedisStream(PolicyStruct, frozen=True, tag="redis"):
    """Entries of a Redis stream, by a consumer group.

    Attributes:
        stream: The stream's key; it is made where there is none.
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        field: The field that is the event's value. An entry without it becomes a JSON object of
            all its fields.
        group: The consumer group; empty means a name made of the function's.
        start: Where a new group begins.
        in_flight: Entries taken and not acknowledged, at most; 1 to 1,000.
        claim_after: The time after which entries of another consumer of the group, which has not
            acknowledged them, are taken over.
        changes: The format of the row changes that the values are, if they are.
    """

    stream: str
    url: str = "redis://127.0.0.1:6379"
    field: str = "data"
    group: str = ""
    start: Begin = "earliest"
    in_flight: int = 200
    claim_after: Seconds = default(60.0)
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, stream=self.stream, field=self.field)
        _address(self, self.url, ("redis", "rediss", "unix"))
        _bounded(self, self.in_flight)
        keep_seconds(self, "claim_after", low=0.001, high=86_400)


class NatsStream(PolicyStruct, frozen=True, tag="nats"):
    """Messages of a NATS JetStream stream, by a durable pull consumer.

    Attributes:
        stream: The stream's name; it must be there.
        subject: Only subjects that match (`orders.*`); empty means all.
        url: `nats://` or `tls://`; several, separated by commas.
        durable: The consumer's name; empty means a name made of the function's.
        start: Where a new consumer begins.
        in_flight: Messages taken and not acknowledged, at most; 1 to 1,000.
        ack_wait: The time after which the server hands an unacknowledged message over again.
        changes: The format of the row changes that the values are, if they are.
    """

    stream: str
    subject: str = ""
    url: str = "nats://127.0.0.1:4222"
    durable: str = ""
    start: Begin = "earliest"
    in_flight: int = 200
    ack_wait: Seconds = default(30.0)
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, stream=self.stream)
        for url in self.url.split(","):
            _address(self, url, ("nats", "tls"))
        _bounded(self, self.in_flight)
        keep_seconds(self, "ack_wait", low=0.001, high=86_400)


class MqttTopic(PolicyStruct, frozen=True, tag="mqtt"):
    """Messages of MQTT topics, by a persistent session with quality of service 1.

    The session outlives the connection, so nothing published while the node is away is missed.
    Publishers may use quality 2; the way from the server to the node is always 1, with repetitions
    recognised here.

    Attributes:
        topic: A filter; `+` and `#` are wildcards.
        url: `mqtt://` or `mqtts://` (TLS), with user and password where needed. MQTT 5.
        client_id: Names the session; empty means a name made of the function's and the topic.
        session: How long the server keeps the session of a node that is away, in whole seconds; 0 to
            4,294,967,295 s, which means for ever.
        in_flight: Messages taken and not acknowledged, at most; 1 to 1,000.
        changes: The format of the row changes that the values are, if they are.
    """

    topic: str
    url: str = "mqtt://127.0.0.1:1883"
    client_id: str = ""
    session: Seconds = default(0xFFFFFFFF)
    in_flight: int = 200
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, topic=self.topic)
        _address(self, self.url, ("mqtt", "mqtts"))
        _bounded(self, self.in_flight)
        keep_seconds(self, "session", low=0, high=0xFFFFFFFF)


class RabbitQueue(PolicyStruct, frozen=True, tag="rabbitmq"):
    """Messages of a RabbitMQ queue, each acknowledged by itself.

    A repetition is recognised by the message's `message_id`; one that its publisher left without
    may be delivered twice when the node dies between taking it and saying so.

    Attributes:
        queue: The queue's name.
        url: `amqp://` or `amqps://` (TLS), with user, password and virtual host.
        declare: Make the queue (durable) where there is none; else it must be there.
        in_flight: Messages taken and not acknowledged (prefetch), at most; 1 to 1,000.
        changes: The format of the row changes that the values are, if they are.
    """

    queue: str
    url: str = "amqp://guest:guest@127.0.0.1:5672/"
    declare: bool = False
    in_flight: int = 200
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, queue=self.queue)
        _address(self, self.url, ("amqp", "amqps"))
        _bounded(self, self.in_flight)


class SqsQueue(PolicyStruct, frozen=True, tag="sqs"):
    """Messages of an Amazon SQS queue, standard or FIFO; the message group is the event's key.

    Attributes:
        queue: The queue's name or URL.
        region: The region; empty means what the AWS configuration of the machine says.
        endpoint: Another server that speaks the protocol, as a URL.
        visibility: How long a message taken stays hidden, in whole seconds; 1 to 43,200 s.
        changes: The format of the row changes that the values are, if they are.
    """

    queue: str
    region: str = ""
    endpoint: str = ""
    visibility: Seconds = default(60)
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, queue=self.queue)
        keep_seconds(self, "visibility", low=1, high=43_200)


class KinesisStream(PolicyStruct, frozen=True, tag="kinesis"):
    """Records of an Amazon Kinesis stream; how far each shard is read is kept on our side.

    Attributes:
        stream: The stream's name.
        region: The region; empty means what the AWS configuration of the machine says.
        endpoint: Another server that speaks the protocol, as a URL.
        start: Where to begin the first time.
        in_flight: Records taken at a time, at most; 1 to 1,000.
        poll: The time between two looks at shards that had nothing; Kinesis allows five looks a
            second and shard, among all readers.
        changes: The format of the row changes that the values are, if they are.
    """

    stream: str
    region: str = ""
    endpoint: str = ""
    start: Begin = "earliest"
    in_flight: int = 500
    poll: Seconds = default(1.0)
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, stream=self.stream)
        _bounded(self, self.in_flight)
        keep_seconds(self, "poll", low=0.001, high=86_400)


class KafkaTopic(PolicyStruct, frozen=True, tag="kafka"):
    """Committed records of a Kafka topic, all partitions; the offsets are kept on our side.

    Positions are committed to the group for Kafka's own tools; they decide nothing.

    Attributes:
        topic: The topic's name; it must be there.
        servers: `host:port` of some of the servers, separated by commas.
        group: The consumer group; empty means a name made of the function's.
        start: Where to begin the first time.
        options: Further settings of librdkafka, such as `{"security.protocol": "SASL_SSL"}`.
        in_flight: Records taken at a time, at most; 1 to 1,000.
        changes: The format of the row changes that the values are, if they are.
    """

    topic: str
    servers: str = "127.0.0.1:9092"
    group: str = ""
    start: Begin = "earliest"
    options: dict[str, str] = msgspec.field(default_factory=dict)
    in_flight: int = 500
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, topic=self.topic, servers=self.servers)
        _bounded(self, self.in_flight)


class PulsarTopic(PolicyStruct, frozen=True, tag="pulsar"):
    """Messages of a Pulsar topic, by an exclusive durable subscription.

    Attributes:
        topic: The topic's name.
        url: `pulsar://` or `pulsar+ssl://`.
        subscription: Its name; empty means a name made of the function's.
        start: Where a new subscription begins.
        in_flight: Messages taken and not acknowledged, at most; 1 to 1,000.
        changes: The format of the row changes that the values are, if they are.
    """

    topic: str
    url: str = "pulsar://127.0.0.1:6650"
    subscription: str = ""
    start: Begin = "earliest"
    in_flight: int = 200
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, topic=self.topic)
        _address(self, self.url, ("pulsar", "pulsar+ssl"))
        _bounded(self, self.in_flight)


class Foreign(PolicyStruct, frozen=True, tag="foreign"):
    """Messages of a source that another package can read.

    The package names a driver in the entry point group `headrace.sources`; see
    `headrace.sources.foreign.base`.

    Attributes:
        kind: The entry point's name.
        settings: What the driver is given.
        in_flight: Messages taken at a time, at most; 1 to 1,000.
        changes: The format of the row changes that the values are, if they are.
    """

    kind: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    in_flight: int = 200
    changes: Debezium | None = None

    def __post_init__(self) -> None:
        _named(self, kind=self.kind)
        _bounded(self, self.in_flight)


ForeignTrigger = (
    RedisStream
    | NatsStream
    | MqttTopic
    | RabbitQueue
    | SqsQueue
    | KinesisStream
    | KafkaTopic
    | PulsarTopic
    | Foreign
)


def _shown(trigger: msgspec.Struct) -> str:
    return f"`{type(trigger).__name__}`"


def _named(trigger: msgspec.Struct, **names: object) -> None:
    for name, value in names.items():
        if not isinstance(value, str) or not value.strip():
            raise Misuse(f"{_shown(trigger)}: `{name}={value!r}` names nothing; write its name")


def _address(trigger: msgspec.Struct, url: object, schemes: tuple[str, ...]) -> None:
    # The address is not shown: it may hold a password.
    if not isinstance(url, str) or url.strip().partition("://")[0] not in schemes:
        allowed = " or ".join(f"`{scheme}://...`" for scheme in schemes)
        raise Misuse(f"{_shown(trigger)}: the address in `url=` is of another kind; use {allowed}")


def _bounded(trigger: msgspec.Struct, in_flight: object) -> None:
    if (
        not isinstance(in_flight, int)
        or isinstance(in_flight, bool)
        or not 1 <= in_flight <= MAX_IN_FLIGHT
    ):
        raise Misuse(
            f"{_shown(trigger)}: `in_flight={in_flight!r}` is out of range; "
            f"use 1 to {MAX_IN_FLIGHT:,}"
        )
