"""Triggers that bring events into the platform from outside, as an author names them.

The drivers that serve these values are the modules of this package; none is loaded by `import
headrace.sources`, so that a process that only declares a function stays light.
"""

from headrace.model.triggers.debezium import Debezium
from headrace.model.triggers.files import Missing, Objects, Sftp, Silence
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
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.tables import SqlTable
from headrace.sdk.custom_trigger import Emit

__all__ = [
    "Debezium",
    "Emit",
    "Foreign",
    "KafkaTopic",
    "KinesisStream",
    "Lag",
    "Missing",
    "MqttTopic",
    "NatsStream",
    "Objects",
    "PulsarTopic",
    "RabbitQueue",
    "RedisStream",
    "Sftp",
    "Silence",
    "SqlTable",
    "SqsQueue",
]
