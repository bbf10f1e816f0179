"""Choice of an event's partition: pure, and the same in the host, the child and librdkafka.

A key always meets the same partition (librdkafka's `consistent`: CRC-32 of the key modulo the
number of partitions). Events without a key go where the caller says, a whole batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from headrace.model.event import Event


def partition_of(key: str | None, partitions: int, sticky: int = 0) -> int:
    """The key's partition; without a key, the one the caller sticks to for now."""
    if key is None:
        return sticky % partitions
    return crc32(key.encode()) % partitions if partitions > 1 else 0


def split(events: Iterable[Event], partitions: int, sticky: int = 0) -> dict[int, list[Event]]:
    """The events by partition, each list in the order given; those without a key go to `sticky`."""
    found: dict[int, list[Event]] = {}
    for event in events:
        found.setdefault(partition_of(event.key, partitions, sticky), []).append(event)
    return found
