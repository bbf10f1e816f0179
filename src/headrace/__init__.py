"""Headrace: functions that events trigger, with every effect exactly once.

What most functions need is here; the rest has a module of its own: `headrace.sources`,
`headrace.webhooks`, `headrace.windows`, `headrace.bus`, `headrace.client`, `headrace.errors` and
`headrace.testing`.

A name is loaded when it is first used (PEP 562): every command and every process of the platform
imports this package, and most need nothing of what authors write with.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headrace.model.errors import HeadraceError
    from headrace.model.flow_control import (
        Concurrency,
        Debounce,
        Priority,
        Sample,
        Singleton,
        Throttle,
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
    from headrace.model.triggers.files import Files
    from headrace.model.triggers.http import Bearer, Cors, Http, Legacy, PerClient, Webhook
    from headrace.model.triggers.schedules import At, Cron, Every
    from headrace.sdk.app import App
    from headrace.sdk.batch import Batch
    from headrace.sdk.consumer import Consumer
    from headrace.sdk.context import Context
    from headrace.sdk.event import Event
    from headrace.sdk.queue import Queue
    from headrace.sdk.request import Reply, Request
    from headrace.sdk.resource import Resource
    from headrace.sdk.results import Failures, Output, Permanent
    from headrace.sdk.settings import Setting
    from headrace.sdk.state import State
    from headrace.sdk.store import Store
    from headrace.sdk.stream import Stream

__all__ = [
    "App",
    "At",
    "Batch",
    "Bearer",
    "Breaker",
    "Concurrency",
    "Consumer",
    "Context",
    "Cors",
    "Cron",
    "DeadLetter",
    "Debounce",
    "Discard",
    "Event",
    "Every",
    "Failures",
    "Files",
    "HeadraceError",
    "Http",
    "Legacy",
    "Output",
    "ParkKey",
    "ParkPartition",
    "PerClient",
    "Permanent",
    "Priority",
    "Queue",
    "Reply",
    "Request",
    "Resource",
    "Resources",
    "Retry",
    "Sample",
    "Scaling",
    "Setting",
    "Singleton",
    "State",
    "Store",
    "Stream",
    "Throttle",
    "Webhook",
]

_MODULES: Final = {
    "App": "headrace.sdk.app",
    "At": "headrace.model.triggers.schedules",
    "Batch": "headrace.sdk.batch",
    "Bearer": "headrace.model.triggers.http",
    "Breaker": "headrace.model.policy",
    "Concurrency": "headrace.model.flow_control",
    "Consumer": "headrace.sdk.consumer",
    "Context": "headrace.sdk.context",
    "Cors": "headrace.model.triggers.http",
    "Cron": "headrace.model.triggers.schedules",
    "DeadLetter": "headrace.model.policy",
    "Debounce": "headrace.model.flow_control",
    "Discard": "headrace.model.policy",
    "Event": "headrace.sdk.event",
    "Every": "headrace.model.triggers.schedules",
    "Failures": "headrace.sdk.results",
    "Files": "headrace.model.triggers.files",
    "HeadraceError": "headrace.model.errors",
    "Http": "headrace.model.triggers.http",
    "Legacy": "headrace.model.triggers.http",
    "Output": "headrace.sdk.results",
    "ParkKey": "headrace.model.policy",
    "ParkPartition": "headrace.model.policy",
    "PerClient": "headrace.model.triggers.http",
    "Permanent": "headrace.sdk.results",
    "Priority": "headrace.model.flow_control",
    "Queue": "headrace.sdk.queue",
    "Sample": "headrace.model.flow_control",
    "Reply": "headrace.sdk.request",
    "Request": "headrace.sdk.request",
    "Resource": "headrace.sdk.resource",
    "Resources": "headrace.model.policy",
    "Retry": "headrace.model.policy",
    "Scaling": "headrace.model.policy",
    "Setting": "headrace.sdk.settings",
    "Singleton": "headrace.model.flow_control",
    "State": "headrace.sdk.state",
    "Store": "headrace.sdk.store",
    "Stream": "headrace.sdk.stream",
    "Throttle": "headrace.model.flow_control",
    "Webhook": "headrace.model.triggers.http",
}
"""The module that defines each public name."""

_MOVED: Final = {
    "Conflict": "headrace.errors.Conflict",
    "Corrupt": "headrace.errors.Corrupt",
    "Debezium": "headrace.sources.Debezium",
    "DiskFull": "headrace.errors.DiskFull",
    "Emit": "headrace.sources.Emit",
    "Fenced": "headrace.errors.Fenced",
    "Foreign": "headrace.sources.Foreign",
    "GitHub": "headrace.webhooks.GitHub",
    "Hmac": "headrace.webhooks.Hmac",
    "Hopping": "headrace.windows.HoppingWindow",
    "HttpTarget": "headrace.bus.HttpTarget",
    "Invalid": "headrace.errors.Invalid",
    "KafkaTopic": "headrace.sources.KafkaTopic",
    "KinesisStream": "headrace.sources.KinesisStream",
    "Lag": "headrace.sources.Lag",
    "Locked": "headrace.errors.Locked",
    "Missing": "headrace.sources.Missing",
    "Misuse": "headrace.errors.Misuse",
    "MqttTopic": "headrace.sources.MqttTopic",
    "NatsStream": "headrace.sources.NatsStream",
    "Objects": "headrace.sources.Objects",
    "Overloaded": "headrace.errors.Overloaded",
    "Problem": "headrace.errors.Problem",
    "PulsarTopic": "headrace.sources.PulsarTopic",
    "RabbitQueue": "headrace.sources.RabbitQueue",
    "RedisStream": "headrace.sources.RedisStream",
    "Refused": "headrace.errors.Refused",
    "Rule": "headrace.bus.Rule",
    "Secret": "headrace.webhooks.Secret",
    "Session": "headrace.windows.SessionWindow",
    "Sftp": "headrace.sources.Sftp",
    "Silence": "headrace.sources.Silence",
    "Slack": "headrace.webhooks.Slack",
    "SqsQueue": "headrace.sources.SqsQueue",
    "StandardWebhooks": "headrace.webhooks.StandardWebhooks",
    "Stripe": "headrace.webhooks.Stripe",
    "Table": "headrace.sources.SqlTable",
    "TooLarge": "headrace.errors.TooLarge",
    "Tumbling": "headrace.windows.TumblingWindow",
    "Unavailable": "headrace.errors.Unavailable",
    "Undecodable": "headrace.errors.Undecodable",
    "Unknown": "headrace.errors.Unknown",
    "Window": "headrace.windows.ClosedWindow",
}
"""Names that stood here once, and where they are now."""

if not TYPE_CHECKING:  # A checker that sees `__getattr__` would accept every misspelt name.

    def __getattr__(name: str) -> object:
        if (module := _MODULES.get(name)) is not None:
            value = globals()[name] = getattr(import_module(module), name)
            return value
        if (moved := _MOVED.get(name)) is not None:
            module, _, new = moved.rpartition(".")
            # An AttributeError would reach `from headrace import` without this text.
            raise ImportError(f"`headrace.{name}` has moved: write `from {module} import {new}`")
        raise AttributeError(f"module `headrace` has no attribute `{name}`")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
