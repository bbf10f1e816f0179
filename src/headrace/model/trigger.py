"""What sets a function off, as plain values. Each kind of trigger is one tagged struct."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class StreamTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="stream"):
    """Records arrive on one stream, or on several co-partitioned ones merged by event time.

    Attributes:
        streams: Full names; more than one means merged.
        start: Where a new consumer group begins: `earliest`, `latest`, an offset, or a timestamp
            in microseconds written as `@micros`.
        merge: `time` delivers several streams' records in event-time order.
        lateness: Seconds an idle stream may hold the others back in a merge.
        pattern: An EventBridge pattern; records that do not match count as done.
    """

    streams: tuple[str, ...]
    start: str = "earliest"
    merge: Literal["none", "time"] = "none"
    lateness: float = 1.0
    pattern: dict[str, Any] | None = None


class CallTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """Called by name, over HTTP or by another function; every function can be."""


Trigger = StreamTrigger | CallTrigger
