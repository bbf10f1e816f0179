"""Headrace: functions set off by events, every effect exactly once.

This is the authors' door: it loads the sdk and the model, the standard library and msgspec.
"""

from headrace.model.errors import (
    Conflict,
    Corrupt,
    DiskFull,
    Fenced,
    HeadraceError,
    Invalid,
    Locked,
    Misuse,
    Overloaded,
    Refused,
    TooLarge,
    Unavailable,
    Unknown,
)
from headrace.model.foreign import (
    Foreign,
    KafkaTopic,
    KinesisStream,
    MqttTopic,
    NatsStream,
    PulsarTopic,
    RabbitQueue,
    RedisStream,
    SqsQueue,
)
from headrace.model.policy import (
    Breaker,
    DeadLetter,
    Discard,
    ParkKey,
    ParkPartition,
    Resources,
    Retry,
    Scaling,
)
from headrace.model.schedules import At, Cron, Every
from headrace.model.watches import Files, Missing, Silence
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.sdk.custom import Emit
from headrace.sdk.event import Event, Undecodable
from headrace.sdk.results import Failures, Output, Permanent
from headrace.sdk.stream import Stream

__all__ = [
    "App",
    "At",
    "Batch",
    "Breaker",
    "Conflict",
    "Context",
    "Corrupt",
    "Cron",
    "DeadLetter",
    "Discard",
    "DiskFull",
    "Emit",
    "Event",
    "Every",
    "Failures",
    "Fenced",
    "Files",
    "Foreign",
    "HeadraceError",
    "Invalid",
    "KafkaTopic",
    "KinesisStream",
    "Locked",
    "Missing",
    "Misuse",
    "MqttTopic",
    "NatsStream",
    "Output",
    "Overloaded",
    "ParkKey",
    "ParkPartition",
    "Permanent",
    "PulsarTopic",
    "RabbitQueue",
    "RedisStream",
    "Refused",
    "Resources",
    "Retry",
    "Scaling",
    "Silence",
    "SqsQueue",
    "Stream",
    "TooLarge",
    "Unavailable",
    "Undecodable",
    "Unknown",
]
