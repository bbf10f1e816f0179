"""The shop without its brokers: on virtual time a foreign source is fed by hand."""

from __future__ import annotations

import pathlib
import sys

import pytest

from headrace.model.event import Event as Fact
from headrace.testing import World

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.modules.pop("function", None)
import function as shop  # noqa: E402

FED = {
    "_foreign.take_order.rabbitmq.0": "rabbitmq",
    "_foreign.take_click.redis.0": "redis",
    "_foreign.take_shipment.nats.0": "nats",
    "_foreign.take_return.sqs.0": "sqs",
    "_foreign.take_visit.kinesis.0": "kinesis",
    "_foreign.take_payment.kafka.0": "kafka or pulsar",
    "_foreign.take_payment.pulsar.1": "kafka or pulsar",
}


@pytest.mark.parametrize(("stream", "system"), FED.items())
def test_what_a_system_hands_over_arrives_on_our_own_stream(stream: str, system: str) -> None:
    with World(shop.app) as world:
        world.publish(stream, Fact(b'{"id": 1}', key="ada"))
        world.run_until_idle()
        assert world.values("arrivals") == [{"from": system, "value": {"id": 1}}]
        assert world.store(shop.counts)[system] == 1


def test_a_node_that_dies_on_the_way_counts_every_message_once() -> None:
    with World(shop.app, seed=3) as world:
        for number in range(20):
            world.publish("_foreign.take_click.redis.0", Fact(b"{}", id=f"clicks/{number}-0"))
            if number % 5 == 4:
                world.crash()
        world.run_until_idle()
        assert world.store(shop.counts)["redis"] == 20


def test_a_sensor_that_sends_nonsense_waits_and_the_others_go_on() -> None:
    with World(shop.app) as world:
        stream = "_foreign.read_sensor.mqtt.0"
        world.publish(stream, Fact(b"21.5", key="sensors/hall/temperature"))
        world.publish(stream, Fact(b"\xff broken", key="sensors/attic/temperature"))
        world.publish(stream, Fact(b"95", key="sensors/oven/temperature"))
        world.run_until_idle()
        assert world.store(shop.counts)["mqtt"] == 2
        assert {"alarm": "sensors/oven/temperature", "celsius": 95.0} in world.values("arrivals")
        assert [parked.key for parked in world.parked()] == ["sensors/attic/temperature"]
