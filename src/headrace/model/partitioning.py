"""Which partition an event belongs to: the same answer in the host, in a function and in a producer.

CRC-32 of the UTF-8 key modulo the number of partitions, as librdkafka's `consistent` partitioner.
"""

from __future__ import annotations

from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """The partition of `key` in a stream of `partitions` partitions."""
    return crc32(key.encode()) % partitions
