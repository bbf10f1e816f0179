"""A shop whose events are born elsewhere: one function for each system that hands them over.

Every one of them ends in one stream of our own, `arrivals`, and a count by system.
"""

from __future__ import annotations

from typing import Any

from headrace import App, Context, Event, ParkKey
from headrace.sources import (
    KafkaTopic,
    KinesisStream,
    MqttTopic,
    NatsStream,
    PulsarTopic,
    RabbitQueue,
    RedisStream,
    SqsQueue,
)

app = App("foreign", owner="shop")
arrivals = app.stream("arrivals", partitions=4)
counts = app.store("counts", int, default=0)


def arrived(event: Event, context: Context, system: str) -> None:
    """Say on our own stream what came from where, and count it."""
    value = event.value
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    context.publish(arrivals, {"from": system, "value": shown}, key=event.key or system)
    context.store(counts)[system] += 1


@app.function(MqttTopic("sensors/+/temperature"), order="key", on_failure=ParkKey())
def read_sensor(event: Event[bytes], context: Context) -> None:
    """Take a sensor's reading; its topic is its key, so one sensor's readings stay in order."""
    celsius = float(event.value)
    if celsius > 90:
        context.publish(arrivals, {"alarm": event.key, "celsius": celsius}, key=event.key)
    arrived(event, context, "mqtt")


@app.function(RabbitQueue("orders", "amqp://guest:guest@127.0.0.1:5672/"))
def take_order(event: Event[dict[str, Any]], context: Context) -> None:
    """Take an order from RabbitMQ; its `message_id` keeps a redelivery from counting twice."""
    arrived(event, context, "rabbitmq")


@app.function(RedisStream("clicks", field="click"))
def take_click(event: Event[dict[str, Any]], context: Context) -> None:
    """Take a click from a Redis stream."""
    arrived(event, context, "redis")


@app.function(NatsStream("SHIPMENTS", "shipments.>", in_flight=500))
def take_shipment(event: Event[dict[str, Any]], context: Context) -> None:
    """Take a shipment from NATS JetStream."""
    arrived(event, context, "nats")


@app.function(SqsQueue("returns", region="eu-central-1"))
def take_return(event: Event[dict[str, Any]], context: Context) -> None:
    """Take a return from Amazon SQS."""
    arrived(event, context, "sqs")


@app.function(KinesisStream("visits", region="eu-central-1", start="latest"))
def take_visit(event: Event[dict[str, Any]], context: Context) -> None:
    """Take a visit from Amazon Kinesis, from now on."""
    arrived(event, context, "kinesis")


@app.function(KafkaTopic("payments", "127.0.0.1:9092"), PulsarTopic("payments"))
def take_payment(event: Event[dict[str, Any]], context: Context) -> None:
    """Take a payment, whether it comes by Kafka or by Pulsar."""
    arrived(event, context, "kafka or pulsar")
