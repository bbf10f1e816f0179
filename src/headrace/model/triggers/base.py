"""Triggers of a function, as plain values. Each kind of trigger is one tagged struct."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from headrace.model.options import Option
from headrace.model.triggers.bus import Rule
from headrace.model.triggers.debezium import Debezium
from headrace.model.triggers.files import Custom, Ends, Files, Missing, Objects, Sftp, Silence
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Http, Webhook
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.schedules import At, Cron, Every
from headrace.model.triggers.tables import SqlTable

MergeMode = Literal["none", "time"]


class StreamTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="stream"):
    """Records arrive on one stream, or on several co-partitioned ones merged by event time.

    Attributes:
        streams: Full names; more than one means merged.
        start: Where a new consumer group begins: `earliest`, `latest`, an offset, or a timestamp
            in microseconds written as `@micros`.
        merge: `time` delivers several streams' records in event-time order.
        idle_timeout: Seconds an idle stream may hold the others back in a merge.
        pattern: An EventBridge pattern; records that do not match count as done.
        changes: The format of the row changes that the records are, if they are.
    """

    streams: tuple[str, ...]
    start: Annotated[
        str,
        Option(
            "where a new consumer group begins: `earliest`, `latest`, an offset, an aware `datetime`",
            fixed=True,
        ),
    ] = "earliest"
    merge: Annotated[
        MergeMode,
        Option(
            '`"time"` reads several co-partitioned streams in event-time order, '
            "[the same in every run](../concepts/delivery.md#merging)",
            fixed=True,
        ),
    ] = "none"
    idle_timeout: Annotated[
        float,
        Option("how long an idle stream holds the others back in a merge", 0, 86_400, fixed=True),
    ] = 1.0
    pattern: Annotated[
        dict[str, Any] | None,
        Option("an EventBridge pattern; events that do not match count as done", fixed=True),
    ] = None
    # The author alone knows how the code reads its events.
    changes: Annotated[
        Debezium | None,
        Option(
            "the format of row changes in its input: `Debezium()`; see "
            "[change data capture by others](triggers.md#change-data-capture-by-others)",
            fixed=True,
        ),
    ] = None


class CallTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """Called by name, over HTTP or by another function; every function can be."""


Trigger = (
    StreamTrigger
    | CallTrigger
    | Cron
    | Every
    | At
    | Files
    | Objects
    | Sftp
    | SqlTable
    | Silence
    | Missing
    | Lag
    | Custom
    | Ends
    | ForeignTrigger
    | Http
    | Webhook
    | Rule
)


def listener(function: str, place: int, trigger: Trigger) -> StreamTrigger | None:
    """Streams that a function reads because of its trigger at `place`: named streams, or a source's own.

    None for a trigger that appends nothing (`call`, a synchronous `http`).
    """
    match trigger:
        case StreamTrigger():
            return trigger
        case Lag(stream=stream, start=start):
            return StreamTrigger(streams=(stream,), start=start)
        case CallTrigger() | Http(mode="sync" | "live"):
            return None
        case _:
            kind = trigger.__struct_config__.tag
            changes = trigger.changes if isinstance(trigger, ForeignTrigger) else None
            return StreamTrigger(streams=(f"_{function}.{kind}.{place}",), changes=changes)


def listeners(function: str, triggers: tuple[Trigger, ...]) -> list[tuple[Trigger, StreamTrigger]]:
    """Every trigger that makes the function read something, with what it reads."""
    found = [
        (trigger, listener(function, place, trigger)) for place, trigger in enumerate(triggers)
    ]
    return [(trigger, reads) for trigger, reads in found if reads is not None]


def own_settings(trigger: Trigger) -> dict[str, Any]:
    """Options of the stream that keeps a trigger's events."""
    if isinstance(trigger, Http | Webhook):
        return {
            "dedupe_window": float(trigger.dedupe),
            "max_event_bytes": trigger.max_bytes,
            "codec": trigger.codec,
        }
    if isinstance(trigger, Ends):
        # What a window holds is kept as exactly as state is.
        return {"partitions": trigger.partitions, "codec": "msgpack"}
    return {}
