from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from headrace.model.errors import Misuse
from headrace.model.triggers.base import StreamTrigger, Trigger, listener
from headrace.model.triggers.foreign import (
    MAX_IN_FLIGHT,
    Foreign,
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

PLAIN: tuple[ForeignTrigger, ...] = (
    RedisStream("orders"),
    NatsStream("orders"),
    MqttTopic("orders/#"),
    RabbitQueue("orders"),
    SqsQueue("orders"),
    KinesisStream("orders"),
    KafkaTopic("orders"),
    PulsarTopic("orders"),
    Foreign("acme", {"place": "here"}),
)


@pytest.mark.parametrize("trigger", PLAIN, ids=lambda trigger: type(trigger).__name__)
def test_a_foreign_trigger_survives_the_way_to_the_host_and_back(trigger: ForeignTrigger) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(trigger), type=Trigger) == trigger


@pytest.mark.parametrize("trigger", PLAIN, ids=lambda trigger: type(trigger).__name__)
def test_its_function_reads_a_stream_of_its_own(trigger: ForeignTrigger) -> None:
    kind = trigger.__struct_config__.tag
    assert listener("app.f", 2, trigger) == StreamTrigger(streams=(f"_app.f.{kind}.2",))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RedisStream(""), "`RedisStream`: `stream=''` names nothing"),
        (lambda: RedisStream("a", field=" "), "`field=' '` names nothing"),
        (lambda: RedisStream("a", "http://localhost"), "use `redis://...` or `rediss://...`"),
        (
            lambda: RedisStream("a", claim_after=0),
            "`claim_after=` of `RedisStream` is 0 s, which is out of range",
        ),
        (lambda: NatsStream("a", url="nats://h,amqp://h"), "use `nats://...` or `tls://...`"),
        (
            lambda: NatsStream("a", ack_wait=-1),
            "`ack_wait=` of `NatsStream` is -1 s, which is out of range",
        ),
        (lambda: MqttTopic("a", in_flight=0), "`in_flight=0` is out of range; use 1 to 1,000"),
        (lambda: MqttTopic("a", in_flight=MAX_IN_FLIGHT + 1), "`in_flight=1001` is out of range"),
        (
            lambda: MqttTopic("a", session=-1),
            "`session=` of `MqttTopic` is -1 s, which is out of range",
        ),
        (lambda: RabbitQueue("a", "mqtt://localhost"), "use `amqp://...` or `amqps://...`"),
        (
            lambda: SqsQueue("a", visibility=0),
            "`visibility=` of `SqsQueue` is 0 s, which is out of range; use 1 to 43,200",
        ),
        (
            lambda: KinesisStream("a", poll=0),
            "`poll=` of `KinesisStream` is 0 s, which is out of range",
        ),
        (lambda: KafkaTopic("a", ""), "`servers=''` names nothing"),
        (lambda: PulsarTopic("a", "kafka://localhost"), "use `pulsar://...`"),
        (lambda: Foreign(""), "`kind=''` names nothing"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises(Misuse) as caught:
        make()
    assert said in str(caught.value)


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(Misuse) as caught:
        RabbitQueue("a", "http://user:hunter2@localhost")
    assert "hunter2" not in str(caught.value)
