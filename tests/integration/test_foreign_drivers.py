"""What only one system has: groups, shards, filters, refusals; and a whole node between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pamqp import encode
from pamqp.commands import Basic
from tests.integration.gateway_nodes import operator, records, start, wait_for
from tests.services.systems import (
    AWS,
    SYSTEMS,
    Kafka,
    Mqtt,
    Nats,
    Pulsar,
    Rabbit,
    Redis,
    Sqs,
    System,
)

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.errors import Misuse, Unavailable
from headrace.model.record import decode_events, encode_events
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
from headrace.sources.foreign.base import DriverContext, ForeignMessage, ForeignSource
from headrace.sources.foreign.feed import fitted
from headrace.sources.foreign.open import driver_of

Opened = Callable[[str], Any]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Servers, each started when a test first asks for it."""
    running: dict[str, System] = {}

    def get(name: str) -> Any:
        if name not in running:
            running[name] = SYSTEMS[name](tmp_path_factory.mktemp(name))
        return running[name]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        yield get
        for system in running.values():
            system.close()


@asynccontextmanager
async def connected(
    trigger: ForeignTrigger, *, name: str = "app-read", places: dict[str, str] | None = None
) -> AsyncIterator[ForeignSource[Any]]:
    driver = driver_of(trigger, DriverContext(name, SystemClock(), SystemEntropy()))
    try:
        await driver.connect(places or {})
        yield driver
    finally:
        await driver.close()


async def received(driver: ForeignSource[Any], count: int) -> list[ForeignMessage[Any]]:
    found: list[ForeignMessage[Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await driver.receive(100)
    return found


def values(messages: Sequence[ForeignMessage[Any]]) -> list[bytes]:
    return [message.event.value for message in messages]


async def test_redis_entries_another_consumer_left_lying_are_taken_over(opened: Opened) -> None:
    redis: Redis = opened("redis")
    queue = await redis.make()
    trigger = RedisStream(queue, f"redis://127.0.0.1:{redis.port}", group="g", claim_after=0.2)
    await redis.send(queue, [b"1", b"2"])
    async with connected(trigger, name="gone") as driver:
        assert values(await received(driver, 2)) == [b"1", b"2"]
    await asyncio.sleep(0.3)
    async with connected(trigger, name="here") as driver:
        found = await received(driver, 2)
        assert values(found) == [b"1", b"2"]
        await driver.acknowledge(found)
    assert await redis.left(queue) == 0


async def test_a_redis_entry_without_the_field_becomes_an_object_of_all(opened: Opened) -> None:
    redis: Redis = opened("redis")
    queue = await redis.make()
    async with redis._client() as client:
        await client.xadd(queue, {"a": "1", "b": b"\xff"})
        await client.xadd(queue, {"data": b"\xff", "a": "1"})
    async with connected(redis.trigger(queue)) as driver:
        one, other = (message.event for message in await received(driver, 2))
    assert one.value == b'{"a":"1","b":{"base64":"/w=="}}'
    assert (other.value, other.headers) == (b"\xff", {"a": "1"})


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_redis_field_that_comes_several_times_keeps_all_its_values(
    opened: Opened, protocol: int
) -> None:
    redis: Redis = opened("redis")
    queue = await redis.make()
    pairs = ("tag", "a", "other", "x", "tag", "b")
    async with redis._client() as client:
        await client.execute_command("XADD", queue, "*", *pairs)
        await client.execute_command("XADD", queue, "*", "data", "1", *pairs)
        await client.execute_command("XADD", queue, "*", *pairs, "data", "1", "data", "2")
    url = f"redis://127.0.0.1:{redis.port}?protocol={protocol}"
    async with connected(RedisStream(queue, url)) as driver:
        events = [message.event for message in await received(driver, 3)]
    assert [event.value for event in events] == [
        b'{"tag":["a","b"],"other":"x"}',
        b"1",
        b'["1","2"]',
    ]
    told = {"tag": '["a","b"]', "other": "x"}
    assert [event.headers for event in events] == [None, told, told]


async def test_a_redis_key_that_is_no_stream_is_refused(opened: Opened) -> None:
    redis: Redis = opened("redis")
    async with redis._client() as client:
        await client.set("text", "1")
    with pytest.raises(Misuse, match="the key holds no stream"):
        async with connected(redis.trigger("text")):
            pass


async def test_a_nats_filter_takes_its_subjects_only(opened: Opened) -> None:
    nats: Nats = opened("nats")
    queue = await nats.make()
    trigger = NatsStream(queue, f"{queue}.kept.*", f"nats://127.0.0.1:{nats.port}")
    async with nats._client() as stream:
        for subject in ("kept.a", "left.b", "kept.c"):
            await stream.publish(f"{queue}.{subject}", subject.encode())
    async with connected(trigger) as driver:
        found = await received(driver, 2)
        await driver.acknowledge(found)
        assert [message.event.key for message in found] == [f"{queue}.kept.a", f"{queue}.kept.c"]
        assert await driver.receive(10) == []


@pytest.mark.parametrize(
    ("head", "subject", "headers", "key"),
    [
        (b"NATS/1.0\r\nStatus: shipped\r\n\r\n", b"a", {"Status": "shipped"}, "a"),
        (b"NATS/1.0\r\nStatus: 404\r\n\r\n", b"a", {"Status": "404"}, "a"),
        (b"NATS/1.0 100 Idle\r\n\r\n", b"a", {"Status": "100", "Description": "Idle"}, "a"),
        (b"NATS/1.0\r\nX: \xff\r\n\r\n", b"\xfe", {"X": "\ufffd"}, r"\xfe"),
        (b"NATS/1.0\r\na: 1\r\nb: x\r\na: 2\r\n\r\n", b"a", {"a": '["1","2"]', "b": "x"}, "a"),
        (b"garbage", b"a", {"headrace-headers-dropped": "7 bytes"}, "a"),
    ],
)
async def test_a_nats_message_that_looks_like_the_servers_word_or_like_none_is_told(
    opened: Opened, head: bytes, subject: bytes, headers: dict[str, str], key: str
) -> None:
    nats: Nats = opened("nats")
    name = await nats.make()
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    sizes = b"%d %d" % (len(head), len(head) + 3)
    writer.write(
        b'CONNECT {"verbose": false, "headers": true}\r\nHPUB %b.%b %b\r\n%bodd\r\nPING\r\n'
        % (name.encode(), subject, sizes, head)
    )
    assert await reader.readuntil(b"PONG")
    writer.close()
    await nats.send(name, [b"next"])
    async with connected(nats.trigger(name)) as driver:
        odd, after = await received(driver, 2)
    assert (odd.event.value, after.event.value) == (b"odd", b"next")
    assert (odd.event.headers, odd.event.key) == (headers, f"{name}.{key}")


async def test_a_nats_consumer_that_was_deleted_is_missed(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.foreign.nats.CHECK_S", 0.5)
    nats: Nats = opened("nats")
    name = await nats.make()
    async with connected(nats.trigger(name)) as driver, nats._client() as stream:
        (consumer,) = await stream.consumers_info(name)
        await stream.delete_consumer(name, consumer.name)
        with pytest.raises(Unavailable, match="was deleted"):
            await received(driver, 1)
        await driver.close()
        await driver.connect({})
        await nats.send(name, [b"again"])
        assert values(await received(driver, 1)) == [b"again"]


@pytest.mark.parametrize(
    ("entry", "name", "value", "headers", "time"),
    [
        ({"data": "v"}, "18446744073709551614-1", b"v", None, None),
        ({"data": "v", b"\xff": b"\xfe"}, "5-1", b"v", None, 5_000),
        ({b"\xff": "a"}, "5-1", b'{"\\\\xff":"a"}', None, 5_000),
    ],
)
async def test_an_odd_redis_entry_holds_up_nothing(
    opened: Opened, entry: Any, name: str, value: bytes, headers: None, time: int | None
) -> None:
    redis: Redis = opened("redis")
    stream = await redis.make()
    async with redis._client() as client:
        await client.xadd(stream, entry, id=name)
    async with connected(redis.trigger(stream)) as driver:
        (message,) = await received(driver, 1)
    event = fitted(message.event)
    assert (event.value, event.headers, event.time) == (value, headers, time)
    assert decode_events(encode_events([event])) == [event]


async def test_mqtt_messages_sent_while_nobody_listened_are_not_missed(opened: Opened) -> None:
    mqtt: Mqtt = opened("mqtt")
    queue = await mqtt.make()
    async with connected(mqtt.trigger(queue)):
        pass
    await mqtt.send(queue, [b"1", b"2"])
    async with connected(mqtt.trigger(queue)) as driver:
        assert values(await received(driver, 2)) == [b"1", b"2"]


async def test_mqtt_sends_no_more_than_may_be_in_flight(opened: Opened) -> None:
    mqtt: Mqtt = opened("mqtt")
    queue = await mqtt.make()
    trigger = MqttTopic(f"{queue}/#", f"mqtt://127.0.0.1:{mqtt.port}", in_flight=5)
    async with connected(trigger) as driver:
        await mqtt.send(queue, [b"%d" % number for number in range(12)])
        first = await received(driver, 5)
        assert await driver.receive(100) == []
        await driver.acknowledge(first)
        assert len(values(await received(driver, 5))) == 5


async def test_a_rabbitmq_message_without_an_id_has_no_mark(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    queue = await rabbit.make()
    # This client gives every message an id; others do not, so it is kept from it here.
    monkeypatch.setattr("aiormq.channel.UUID", lambda **_: SimpleNamespace(hex=None))
    async with rabbit._channel() as channel:
        await (await channel.get_underlay_channel()).basic_publish(
            b"x", routing_key=queue, properties=Basic.Properties(headers={"a": 1})
        )
    async with connected(rabbit.trigger(queue)) as driver:
        (message,) = await received(driver, 1)
    assert (message.mark, message.event.id) == ("", None)
    assert message.event.headers == {"a": "1"}


async def test_rabbitmq_senders_and_ids_that_hold_a_slash_are_told_apart(opened: Opened) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    queue = await rabbit.make()
    async with rabbit._channel() as channel:
        publish = (await channel.get_underlay_channel()).basic_publish
        for app, name in (("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c")):
            told = Basic.Properties(app_id=app, message_id=name)
            await publish(b"x", routing_key=queue, properties=told)
    async with connected(rabbit.trigger(queue)) as driver:
        marks = {message.mark for message in await received(driver, 3)}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("kind", "raw", "event"),
    [
        ("shortstr", b"\x03a\xff\xfe", {"id": r"{queue}//a\xff\xfe"}),
        ("timestamp", (1_763_740_000_000).to_bytes(8), {"time": 1_763_740_000_000_000}),
        ("timestamp", b"\xff" * 8, {"time": None}),
        ("timestamp", b"\x00" * 8, {"time": 0}),
        (
            "table",
            b"\x00\x00\x00\x04\x01\xff\x74\x01",
            {"headers": {"headrace-headers-dropped": "4 bytes"}},
        ),
        ("table", b"\x00\x00\x00\x08\x01a\x78\x00\x00\x00\x01\xff", {"headers": {"a": "\ufffd"}}),
    ],
)
async def test_rabbitmq_properties_that_cannot_be_read_hold_up_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, kind: str, raw: bytes, event: dict[str, Any]
) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    queue = await rabbit.make()
    async with rabbit._channel() as channel:
        publish = (await channel.get_underlay_channel()).basic_publish
        odd: Any = Basic.Properties(message_id="1", headers={"a": 1}, timestamp=datetime.now(UTC))
        usually = ("", queue)
        with monkeypatch.context() as patch:
            usual: Any = encode.METHODS[kind]
            patch.setitem(
                encode.METHODS, kind, lambda said: usual(said) if said in usually else raw
            )
            await publish(b"odd", routing_key=queue, properties=odd)
    await rabbit.send(queue, [b"next"])
    async with connected(rabbit.trigger(queue)) as driver:
        found, after = await received(driver, 2)
    assert (found.event.value, after.event.value) == (b"odd", b"next")
    for name, wanted in event.items():
        if isinstance(wanted, str):
            wanted = wanted.format(queue=queue)
        assert getattr(found.event, name) == wanted


async def test_tables_and_arrays_in_rabbitmq_headers_are_told_as_json(opened: Opened) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    queue = await rabbit.make()
    headers: Any = {
        "table": {"a": [1, "x", None]},
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "is": True,
    }
    async with rabbit._channel() as channel:
        await (await channel.get_underlay_channel()).basic_publish(
            b"x", routing_key=queue, properties=Basic.Properties(headers=headers)
        )
    async with connected(rabbit.trigger(queue)) as driver:
        (message,) = await received(driver, 1)
    assert message.event.headers == {
        "table": '{"a":[1,"x",null]}',
        "at": "2026-01-02T00:00:00Z",
        "is": "true",
    }


async def test_user_properties_of_one_name_are_all_told(opened: Opened) -> None:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    mqtt: Any = opened("mqtt")
    queue = await mqtt.make()
    async with connected(mqtt.trigger(queue)) as driver:
        said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # theirs
        said.UserProperty = [("a", "1"), ("b", "x"), ("a", "2")]
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        await asyncio.to_thread(client.connect, "127.0.0.1", mqtt.port)
        client.loop_start()
        client.publish(f"{queue}/one", b"x", qos=1, properties=said)
        (message,) = await received(driver, 1)
        client.disconnect()
        client.loop_stop()
    assert message.event.headers == {"a": '["1","2"]', "b": "x"}


async def test_a_rabbitmq_queue_that_is_deleted_and_made_anew_is_read_on(opened: Opened) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    queue = await rabbit.make()
    async with connected(rabbit.trigger(queue)) as driver, rabbit._channel() as channel:
        await (await channel.get_queue(queue)).delete(if_unused=False)
        with pytest.raises(Unavailable, match="was deleted"):
            await received(driver, 1)
        await channel.declare_queue(queue, durable=True)
        await driver.close()
        await driver.connect({})
        await rabbit.send(queue, [b"again"])
        assert values(await received(driver, 1)) == [b"again"]


async def test_a_rabbitmq_password_that_is_wrong_is_refused_and_not_shown(opened: Opened) -> None:
    rabbit: Rabbit = opened("rabbitmq")
    trigger = RabbitQueue("q", f"amqp://guest:hunter2@127.0.0.1:{rabbit.port}/")
    with pytest.raises(Misuse, match="refuses") as caught:
        async with connected(trigger):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["nats", "rabbitmq", "sqs", "kinesis", "kafka"])
async def test_a_queue_that_is_not_there_yet_is_asked_for_again(opened: Opened, name: str) -> None:
    with pytest.raises(Unavailable, match=r"no such|does not exist"):
        async with connected(opened(name).trigger("absent")):
            pass


@pytest.mark.parametrize(
    "trigger",
    [
        RedisStream("q", "redis://127.0.0.1:1"),
        NatsStream("q", url="nats://127.0.0.1:1"),
        MqttTopic("q", "mqtt://127.0.0.1:1"),
        RabbitQueue("q", "amqp://guest:guest@127.0.0.1:1/"),
        SqsQueue("q", "eu-central-1", "http://127.0.0.1:1"),
        KinesisStream("q", "eu-central-1", "http://127.0.0.1:1"),
        PulsarTopic("q", "pulsar://127.0.0.1:1"),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
@pytest.mark.usefixtures("opened")
async def test_a_server_that_is_away_is_asked_for_again(trigger: ForeignTrigger) -> None:
    with pytest.raises(Unavailable, match=r"cannot be reached|does not answer"):
        async with connected(trigger):
            pass


async def test_a_kafka_topic_that_is_made_anew_is_read_from_its_beginning(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.foreign.kafka.ROUND_S", 1.0)
    kafka: Kafka = opened("kafka")
    topic = await kafka.make()
    await kafka.send(topic, [b"old"] * 3)
    async with connected(kafka.trigger(topic)) as driver:
        places = dict(m.place for m in await received(driver, 3) if m.place is not None)
        for _ in range(2):
            # A new leader each time, of which the new topic's knows nothing.
            kafka.server.kill()
            kafka.server.start()
        await asyncio.to_thread(kafka.unmake, topic)
        await asyncio.to_thread(kafka._make, topic)
        with pytest.raises(Unavailable):
            await received(driver, 1)
        await driver.close()
        await driver.connect(places)
        await kafka.send(topic, [b"new"])
        assert values(await received(driver, 1)) == [b"new"]


async def test_a_kafka_that_refuses_the_user_says_so(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.foreign.kafka.TIMEOUT_S", 3.0)
    kafka: Kafka = opened("kafka")
    user = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "somebody",
        "sasl.password": "hunter2",
    }
    trigger = KafkaTopic("any", f"127.0.0.1:{kafka.port}", options=user)
    driver = driver_of(trigger, DriverContext("app-read", SystemClock(), SystemEntropy()))
    with pytest.raises(Misuse, match=r"refuses access: .*SASL") as refused:
        await driver.connect({})
    await driver.close()
    assert "hunter2" not in str(refused.value)


async def test_pulsar_messages_whose_acknowledgement_was_lost_are_known_however_many(
    opened: Opened,
) -> None:
    pulsar: Pulsar = opened("pulsar")
    queue = await pulsar.make()
    trigger = pulsar.trigger(queue)
    async with connected(trigger):
        pass
    await pulsar.send(queue, [b"%d" % number for number in range(250)])
    async with connected(trigger) as driver:
        found = await received(driver, 250)
    places = dict(message.place for message in found if message.place is not None)
    assert len(places) == 1
    async with connected(trigger, places=places) as driver:
        await pulsar.send(queue, [b"new"])
        assert values(await received(driver, 1)) == [b"new"]
    # A place of a cluster that is no more hides nothing of one that was set up since.
    (part,) = places
    async with connected(trigger, places={part: "999999:0:-1:1000"}) as driver:
        # Acknowledgements travel late: any of the others may come once more before it.
        found = []
        while b"new" not in values(found):
            found += await received(driver, 1)


async def test_a_pulsar_source_that_is_stopped_while_it_subscribes_lets_go(opened: Opened) -> None:
    pulsar: Pulsar = opened("pulsar")
    trigger = pulsar.trigger(await pulsar.make())
    for _ in range(5):
        driver = driver_of(trigger, DriverContext("app-read", SystemClock(), SystemEntropy()))
        connecting = asyncio.ensure_future(driver.connect({}))
        await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait((connecting,))
        async with asyncio.timeout(20):
            await driver.close()
    async with asyncio.timeout(20), connected(trigger) as driver:
        assert await driver.receive(1) == []


async def test_a_fifo_queue_keeps_the_order_of_a_group_and_makes_it_the_key(opened: Opened) -> None:
    sqs: Sqs = opened("sqs")
    queue = f"{await sqs.make()}.fifo"
    async with sqs.client() as client:
        made = await client.create_queue(
            QueueName=queue, Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        )
        for number in range(15):
            await client.send_message(
                QueueUrl=made["QueueUrl"], MessageBody=str(number), MessageGroupId="ada"
            )
    found: list[ForeignMessage[Any]] = []
    async with connected(sqs.trigger(queue)) as driver:
        while len(found) < 15:
            batch = await received(driver, 1)
            await driver.acknowledge(batch)
            found += batch
    assert values(found) == [b"%d" % number for number in range(15)]
    assert {message.event.key for message in found} == {"ada"}


async def test_latest_does_not_move_past_what_came_while_the_node_was_away(opened: Opened) -> None:
    kafka: Kafka = opened("kafka")
    queue = await kafka.make()
    await kafka.send(queue, [b"before"])
    trigger = KafkaTopic(queue, f"127.0.0.1:{kafka.port}", start="latest")
    driver = driver_of(trigger, DriverContext("app-read", SystemClock(), SystemEntropy()))
    places = dict(await driver.connect({}))
    await driver.close()
    await kafka.send(queue, [b"while away"])
    async with connected(trigger, places=places) as again:
        assert values(await received(again, 1)) == [b"while away"]


APP = """
from headrace import App, Event
from headrace.sources import NatsStream, RedisStream

app = App("bridge")
seen = app.stream("seen")


@app.function(RedisStream("orders", "redis://127.0.0.1:{redis}"), output=seen)
def from_redis(event: Event[bytes]) -> str:
    return "redis " + event.value.decode()


@app.function(NatsStream("{queue}", url="nats://127.0.0.1:{nats}", ack_wait=1.0), output=seen)
def from_nats(event: Event[bytes]) -> str:
    return "nats " + event.value.decode()
"""


async def send_both(redis: Redis, nats: Nats, queue: str, numbers: range) -> list[str]:
    sent = [b"%03d" % number for number in numbers]
    await redis.send("orders", sent)
    await nats.send(queue, sent)
    return [f"{system} {value.decode()}" for system in ("redis", "nats") for value in sent]


async def test_a_whole_node_killed_again_and_again_reads_two_systems_once(
    opened: Opened, tmp_path: Path
) -> None:
    redis, nats = opened("redis"), opened("nats")
    queue = await nats.make()
    written = APP.format(redis=redis.port, nats=nats.port, queue=queue)
    await asyncio.to_thread((tmp_path / "app.py").write_text, written)
    await asyncio.to_thread(tmp_path.chmod, 0o755)
    sent: list[str] = []
    for life in range(4):
        process, _ = await asyncio.to_thread(start, tmp_path)
        for step in range(6):
            first = life * 60 + step * 10
            sent += await send_both(redis, nats, queue, range(first, first + 10))
            await asyncio.sleep(0.02 + 0.01 * life)
        process.kill()
        process.wait()
    process, url = await asyncio.to_thread(start, tmp_path)
    try:
        with operator(url) as client:
            await asyncio.to_thread(wait_for, lambda: len(records(client, "seen")) >= len(sent))
            await asyncio.sleep(1.5)
            assert sorted(records(client, "seen")) == sorted(sent)
    finally:
        process.terminate()
        process.wait()
    assert await redis.left("orders") == 0
    assert await nats.left(queue) == 0
