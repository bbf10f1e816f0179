"""A foreign trigger -> the source that serves it; a driver's library is loaded only when it is needed."""

from __future__ import annotations

import asyncio
import re
from importlib import metadata
from typing import Any, assert_never

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.errors import Misuse
from headrace.model.triggers.foreign import (
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
from headrace.sources.base import SourceAppender
from headrace.sources.foreign.base import DriverContext, ForeignSource
from headrace.sources.foreign.feed import ForeignFeed

GROUP = "headrace.sources"
# The protocol's limit for one request; more cannot be in flight between two acknowledgements.
SQS_BATCH = 10


class Unheard:
    """The source of a trigger whose system is not there: events come only by hand, in tests."""

    async def run(self, appender: SourceAppender) -> None:
        """Wait for ever."""
        del appender
        await asyncio.Event().wait()


def open_foreign(
    function: str, trigger: ForeignTrigger, *, clock: Clock, entropy: Entropy
) -> ForeignFeed:
    """The feed of `trigger`, not connected yet.

    Raises:
        Misuse: The library it needs is not installed, or no package offers such a driver.
    """
    # Kafka groups, NATS durables and AMQP names allow different signs; these are in all of them.
    name = re.sub(r"[^A-Za-z0-9_-]", "-", function)
    driver = driver_of(trigger, DriverContext(name, clock, entropy))
    in_flight = SQS_BATCH if isinstance(trigger, SqsQueue) else trigger.in_flight
    return ForeignFeed(driver, in_flight=in_flight)


def driver_of(trigger: ForeignTrigger, around: DriverContext) -> ForeignSource[Any]:
    """The driver of `trigger`, not connected yet.

    Raises:
        Misuse: As `open_foreign`.
    """
    match trigger:
        case RedisStream():
            from headrace.sources.foreign.redis import RedisSource

            return RedisSource(trigger, around)
        case NatsStream():
            from headrace.sources.foreign.nats import NatsSource

            return NatsSource(trigger, around)
        case MqttTopic():
            from headrace.sources.foreign.mqtt import MqttSource

            return MqttSource(trigger, around)
        case RabbitQueue():
            from headrace.sources.foreign.rabbitmq import RabbitSource

            return RabbitSource(trigger, around)
        case SqsQueue():
            from headrace.sources.foreign.sqs import SqsSource

            return SqsSource(trigger, around)
        case KinesisStream():
            from headrace.sources.foreign.kinesis import KinesisSource

            return KinesisSource(trigger, around)
        case KafkaTopic():
            from headrace.sources.foreign.kafka import KafkaSource

            return KafkaSource(trigger, around)
        case PulsarTopic():
            from headrace.sources.foreign.pulsar import PulsarSource

            return PulsarSource(trigger, around)
        case Foreign():
            return _of_third_party(trigger, around)
        case _:
            assert_never(trigger)


def _of_third_party(trigger: Foreign, around: DriverContext) -> ForeignSource[Any]:
    offered = metadata.entry_points(group=GROUP)
    names = sorted(offered.names)
    if trigger.kind not in names:
        there = ", ".join(f"`{name}`" for name in names) or "none"
        raise Misuse(
            f"no installed package offers a source `{trigger.kind}` (entry point group `{GROUP}`); "
            f"there is: {there}"
        )
    try:
        driver: ForeignSource[Any] = offered[trigger.kind].load()(dict(trigger.settings), around)
    # Code of a third party: whatever is wrong with it is reported for this trigger, and the app's
    # others still run.
    except (ImportError, AttributeError, TypeError) as error:
        raise Misuse(f"the source `{trigger.kind}` cannot be opened: {error}") from error
    return driver
