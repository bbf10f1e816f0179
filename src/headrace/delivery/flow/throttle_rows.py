"""Rows of a throttle, for its state to survive a crash: when its buckets are full again.

All partitions of a function share its buckets. Each partition writes a bucket to a separate row,
and the latest time of a bucket's rows counts. Changes of one partition are applied in order, so no
change, such as the deletion of a full bucket's row, undoes a later one of another partition.
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
        function: The function with the throttle.
        stream: The first stream that the worker reads.
        partition: The partition that it reads.
        limiter: The limiter that the function's partitions share.
    """

    def __init__(self, function: str, stream: str, partition: int, limiter: FlowLimiter) -> None:
        self._prefix = throttle_rows_of(function) + pack(stream, partition)
        self._limiter = limiter
        self._written = BucketRefills()

    def ahead(self, keys: Iterable[Key], now: int) -> tuple[Row, ...]:
        """Return the rows to commit before a counted run of these keys is executed."""
        full = self._limiter.full_again(keys)
        for bucket, then in full.items():
            self._written.put(bucket, then)
        if len(self._written.full) > MAX_KEYS:
            self._written.forget_full(now)
        return tuple(
            Put(Space.META, self._place(bucket), encode_full(then)) for bucket, then in full.items()
        )

    async def load(self, storage: Storage, now: int) -> None:
        """Load the rows from the store, in place of those in memory."""
        self._written.clear()
        if self._limiter.keeps_rows:
            async for packed, value in rows_of(storage, self._prefix):
                bucket = key_of(packed[len(self._prefix) :])
                self._written.found(bucket, decode_full(value), now)

    # --- rows without a meaning ---------------------------------------------------------------

    def clears(self, now: int) -> bool:
        """Return whether rows can be deleted now."""
        return self._written.clears(now)

    def clears_in(self, now: int) -> float | None:
        """Return the seconds until rows may be deleted; None while there are no rows."""
        return self._written.clears_in(now)

    def cleared(self, now: int) -> tuple[Row, ...]:
        """Return the deletions of these rows."""
        gone = self._written.gone()
        # Together with the rows: a bucket that memory still holds would be written again.
        self._limiter.forget_full(gone, now)
        return tuple(Delete(Space.META, self._place(bucket)) for bucket in gone)

    def _place(self, bucket: Key) -> bytes:
        return self._prefix + key_name(bucket)
