"""Headrace: functions set off by events, every effect exactly once.

This is the authors' door: it loads the sdk and the model, the standard library and msgspec.
"""

from headrace.model.debezium import Debezium
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
from headrace.model.flow_control import Concurrency, Debounce, Priority, Rate, Singleton, Throttle
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
from headrace.model.problem import Problem
from headrace.model.triggers.bus import HttpTarget, Rule
from headrace.model.triggers.files import Files, Missing, Objects, Sftp, Silence
from headrace.model.triggers.foreign import (
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
from headrace.model.triggers.http import Bearer, Cors, Http, Legacy, PerClient, Webhook
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.schedules import At, Cron, Every
from headrace.model.triggers.tables import Table
from headrace.model.webhook_signature import GitHub, Hmac, Secret, Slack, StandardWebhooks, Stripe
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.consumer import Consumer
from headrace.sdk.context import Context
from headrace.sdk.custom_trigger import Emit
from headrace.sdk.event import Event, Undecodable
from headrace.sdk.queue import Queue
from headrace.sdk.request import Reply, Request
from headrace.sdk.resource import Resource
from headrace.sdk.results import Failures, Output, Permanent
from headrace.sdk.settings import Setting
from headrace.sdk.stream import Stream
from headrace.sdk.windows import Hopping, Session, Tumbling, Window

__all__ = [
    "App",
    "At",
    "Batch",
    "Bearer",
    "Breaker",
    "Concurrency",
    "Conflict",
    "Consumer",
    "Context",
    "Corrupt",
    "Cors",
    "Cron",
    "DeadLetter",
    "Debezium",
    "Debounce",
    "Discard",
    "DiskFull",
    "Emit",
    "Event",
    "Every",
    "Failures",
    "Fenced",
    "Files",
    "Foreign",
    "GitHub",
    "HeadraceError",
    "Hmac",
    "Hopping",
    "Http",
    "HttpTarget",
    "Invalid",
    "KafkaTopic",
    "KinesisStream",
    "Lag",
    "Legacy",
    "Locked",
    "Missing",
    "Misuse",
    "MqttTopic",
    "NatsStream",
    "Objects",
    "Output",
    "Overloaded",
    "ParkKey",
    "ParkPartition",
    "PerClient",
    "Permanent",
    "Priority",
    "Problem",
    "PulsarTopic",
    "Queue",
    "RabbitQueue",
    "Rate",
    "RedisStream",
    "Refused",
    "Reply",
    "Request",
    "Resource",
    "Resources",
    "Retry",
    "Rule",
    "Scaling",
    "Secret",
    "Session",
    "Setting",
    "Sftp",
    "Silence",
    "Singleton",
    "Slack",
    "SqsQueue",
    "StandardWebhooks",
    "Stream",
    "Stripe",
    "Table",
    "Throttle",
    "TooLarge",
    "Tumbling",
    "Unavailable",
    "Undecodable",
    "Unknown",
    "Webhook",
    "Window",
]
