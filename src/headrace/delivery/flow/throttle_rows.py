"""What a crash must not forget of a throttle: when its buckets are full again, in rows.

All partitions of a function share its buckets. Each of them writes what it knows of a bucket to a row of
its own, and the latest of a bucket's rows is true. The changes of one partition land in their order; so
no change, such as one that deletes the row of a bucket that was full, undoes what another partition has
written since.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.delivery.flow.limits import (
    MAX_KEYS,
    BucketRefills,
    FlowLimiter,
    Key,
    Row,
    decode_full,
    encode_full,
    key_name,
    key_of,
    rows_of,
    throttle_rows_of,
)
from headrace.model.effects import Delete, Put, Space
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import pack


class ThrottleRows:
    """The rows of one partition; only its worker writes them.

    Args:
        function: Whose throttle it is.
        stream: The first stream that the worker reads.
        partition: The partition that it reads.
        limiter: What the function's partitions share.
    """

    def __init__(self, function: str, stream: str, partition: int, limiter: FlowLimiter) -> None:
        self._prefix = throttle_rows_of(function) + pack(stream, partition)
        self._limiter = limiter
        self._written = BucketRefills()

    def ahead(self, keys: Iterable[Key], now: int) -> tuple[Row, ...]:
        """Rows to be durable before a run of these keys, which has begun, is run."""
        full = self._limiter.full_again(keys)
        for bucket, then in full.items():
            self._written.put(bucket, then)
        if len(self._written.full) > MAX_KEYS:
            self._written.forget_full(now)
        return tuple(
            Put(Space.META, self._place(bucket), encode_full(then)) for bucket, then in full.items()
        )

    async def load(self, storage: Storage, now: int) -> None:
        """Begin (again) with the rows that the store has."""
        self._written.clear()
        if self._limiter.keeps_rows:
            async for packed, value in rows_of(storage, self._prefix):
                bucket = key_of(packed[len(self._prefix) :])
                self._written.found(bucket, decode_full(value), now)

    # --- what says nothing any more -----------------------------------------------------------

    def clears(self, now: int) -> bool:
        """Whether rows can go now."""
        return self._written.clears(now)

    def clears_in(self, now: int) -> float | None:
        """Seconds until it is worth asking again; None while there are no rows."""
        return self._written.clears_in(now)

    def cleared(self, now: int) -> tuple[Row, ...]:
        """What deletes them."""
        gone = self._written.gone()
        self._limiter.forget_full(gone, now)
        return tuple(Delete(Space.META, self._place(bucket)) for bucket in gone)

    def _place(self, bucket: Key) -> bytes:
        return self._prefix + key_name(bucket)
