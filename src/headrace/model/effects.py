"""All that one invocation did and all that was decided about it, as one value for one commit.

`Change` is the storage's language (checks, puts, deletes, appends); `Effects` is delivery's. The
partition worker builds `Effects`; `delivery/commit` turns it into a `Change` and nothing else does.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from headrace.model.outcome import Cause, StateRead, StateWrite
from headrace.model.record import Append, Position


class Space(enum.StrEnum):
    """The tables of the store, each an ordered map from key to value."""

    POSITIONS = "positions"
    STATE = "state"
    WINDOWS = "windows"
    TROUBLE = "trouble"
    PARKED = "parked"
    PARKED_KEYS = "parked_keys"
    DEAD = "dead"
    TIMERS = "timers"
    MARKS = "marks"
    OUTBOX = "outbox"
    CATALOG = "catalog"
    RUNS = "runs"
    META = "meta"


class Check(msgspec.Struct, frozen=True, gc=False):
    """The value at `key` must start with `prefix` (None: there must be no value), or nothing lands.

    `fence` says which error a broken check is: `Fenced` (a newer owner) or `Conflict` (stale state).
    """

    space: Space
    key: bytes
    prefix: bytes | None
    fence: bool = False


class RangeCheck(msgspec.Struct, frozen=True, gc=False):
    """The rows with `low <= key < high` must be `count`, of this `digest`, or it is a `Conflict`.

    The digest is that of `digest_of`; `high` None is the end of the space.
    """

    space: Space
    low: bytes
    high: bytes | None
    count: int
    digest: bytes


VERSION_BYTES = 8
"""What a value begins with and a digest counts: where rows have versions, the version."""


def digest_of(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Digest that differs for rows with other keys or versions, 16 bytes."""
    found = blake2b(digest_size=16)
    for key, value in rows:
        found.update(len(key).to_bytes(4, "big") + key + value[:VERSION_BYTES])
    return found.digest()


class Put(msgspec.Struct, frozen=True, gc=False):
    """Store `value` at `key`, replacing what was there."""

    space: Space
    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove `key`; removing what is not there is fine."""

    space: Space
    key: bytes


class Change(msgspec.Struct, frozen=True, gc=False):
    """Everything that must land together or not at all.

    Checks and ranges are all judged before anything is written. `appends` go into a log that lives in the
    same store, or else into the store's outbox.
    """

    checks: tuple[Check, ...] = ()
    puts: tuple[Put, ...] = ()
    deletes: tuple[Delete, ...] = ()
    appends: tuple[Append, ...] = ()
    ranges: tuple[RangeCheck, ...] = ()


class Progress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Progress of a consumer group in one partition.

    Attributes:
        watermark: Every offset below it is finished.
        sparse: Offsets at or above the watermark that are finished too, ascending.
    """

    watermark: int
    sparse: tuple[int, ...] = ()

    def unfinished(self, low: int, high: int) -> int:
        """Count the events of a log that holds `[low, high)` which are not finished: the lag.

        Retention may have moved `low` beyond the watermark, and beyond offsets of `sparse`.
        """
        begin = max(self.watermark, low)
        return max(high - begin - (len(self.sparse) - bisect_left(self.sparse, begin)), 0)


class Missed(msgspec.Struct, frozen=True, gc=False):
    """Offsets `[low, high)` of a stream that are not there any more; `count` of them were not finished."""

    stream: str
    low: int
    high: int
    count: int


class Trouble(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events `[low, high)` of a partition have failed together `attempts` times.

    Attributes:
        low: First offset.
        high: Offset after the last.
        attempts: Attempts spent on exactly this range.
        due: Not to be tried again before this time, in microseconds since the epoch.
        cause: The last failure.
    """

    low: int
    high: int
    attempts: int
    due: int = 0
    cause: Cause | None = None


class Edit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An operator has changed the value of a dead letter.

    Attributes:
        time: When, in microseconds since the epoch.
        by: Who: `operator`, or the name of a token.
        was: SHA-256 of the value before it, in hex.
    """

    time: int
    by: str
    was: str


class DeadEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that was given up, or waits parked: original bytes, origin, cause, attempts, lineage.

    Attributes:
        attempts: That it was given up after.
        spent: Attempts since it is being redriven.
        due: Not to be tried again before this time, in microseconds since the epoch.
        original: The event as it was first given up, where an operator has changed it since; else empty.
        edits: What operators have changed, oldest first.
    """

    function: str
    position: Position
    event: bytes
    cause: Cause
    attempts: int
    appended: int
    failed: int
    hops: int = 0
    origin: str = ""
    spent: int = 0
    due: int = 0
    original: bytes = b""
    edits: tuple[Edit, ...] = ()


class Effects(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Effects of one invocation's verdict that are to be made durable.

    Attributes:
        function: The function, which is also the consumer group.
        epoch: The owner's epoch of each partition in `progress`.
        progress: New progress by (stream, partition).
        appends: Outputs.
        reads: State versions relied upon, and ranges of state.
        writes: State changes, with `token` as their version.
        token: The invocation's token.
        trouble: By (stream, partition): ranges still failing; empty clears.
        dead: Events given up.
        parked: Events that wait behind a failing key.
        unparked: Positions whose parked rows are finished.
        park_keys: (stream, partition, key) that are to be parked from now on.
        free_keys: (stream, partition, key) whose last parked event is finished.
        extra: Puts and deletes of services that build on delivery (timers, journals).
    """

    function: str
    app: str
    epoch: dict[tuple[str, int], int] = {}
    progress: dict[tuple[str, int], Progress] = {}
    appends: tuple[Append, ...] = ()
    reads: tuple[StateRead, ...] = ()
    writes: tuple[StateWrite, ...] = ()
    token: int = 0
    trouble: dict[tuple[str, int], tuple[Trouble, ...]] = {}
    dead: tuple[DeadEvent, ...] = ()
    parked: tuple[DeadEvent, ...] = ()
    unparked: tuple[DeadEvent, ...] = ()
    park_keys: tuple[tuple[str, int, bytes], ...] = ()
    free_keys: tuple[tuple[str, int, bytes], ...] = ()
    extra: tuple[Put | Delete, ...] = ()
