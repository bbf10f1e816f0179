"""Limits on the runs of a function: how many at once and how often, as a whole and per key.

`FlowLimiter` is shared by the partition workers of a function on a node; it never waits.
`SampleFilter` belongs to one partition worker and decides which events a `Sample` leaves out. Both
use `paced`, a token bucket in one number (the generic cell rate algorithm, ITU-T I.371): the time
at which the bucket is full again. State that must survive a crash is returned as rows for a commit:
by the filter itself, and for the limiter by the `ThrottleRows` of each partition.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from headrace.delivery.unit import FOREVER, pick
from headrace.model.effects import Delete, Put, Space
from headrace.model.function import FunctionSpec
from headrace.model.record import Chunk
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack

MICROS = 1_000_000
PAGE = 1_000
MAX_KEYS = 100_000
CLEAR_US = 60 * MICROS
"""How often full buckets are removed, whose rows have no meaning any more."""

Row = Put | Delete
Key = str | None


class StartRate(msgspec.Struct, frozen=True):
    """A token bucket: one token every `step` microseconds, at most `burst` of them."""

    step: int
    burst: int


def paced(pace: StartRate, full: int, now: int) -> int:
    """Return when the next run may start (`now` or later), if the bucket is full again at `full`."""
    # A token is available as soon as the bucket lacks at most `burst - 1` of them.
    return max(now, _believed(pace, full, now) - pace.step * (pace.burst - 1))


def spent(pace: StartRate, full: int, now: int) -> int:
    """Return when the bucket is full again after a token is taken at `now`."""
    return max(_believed(pace, full, now), now) + pace.step


def _believed(pace: StartRate, full: int, now: int) -> int:
    """Return `full`, or 0 if no bucket can be so empty: the clock was set back since it was written.

    Such a bucket counts as full, so that no run waits and no event is left out because of the clock.
    """
    return full if full <= now + pace.step * pace.burst else 0


def pace_of(limit: int, per: float, burst: int) -> StartRate:
    """Return the bucket of `limit` in `per` seconds."""
    # At least a microsecond: a step of 0 would never limit anything.
    return StartRate(max(int(per * MICROS / limit), 1), burst)


class BucketRefills:
    """Times at which buckets are full again, and the buckets whose rows can be deleted."""

    def __init__(self) -> None:
        self.full: dict[Any, int] = {}
        self._gone: set[Any] = set()
        self._next = 0

    def spend(self, pace: StartRate, of: Any, now: int) -> None:
        """Take a token from a bucket."""
        self.put(of, spent(pace, self.full.get(of, 0), now))

    def put(self, of: Any, full: int) -> None:
        """Note that a bucket is full again at `full`, as its row says."""
        self.full[of] = full
        # A deletion that still waits must not remove the row that is written now.
        self._gone.discard(of)

    def found(self, of: Any, full: int, now: int) -> None:
        """Note a row of the store."""
        if full > now:
            self.full[of] = full
        else:
            self._gone.add(of)

    def forget_full(self, now: int) -> None:
        """Remove full buckets, and note that their rows can be deleted."""
        gone = [of for of, full in self.full.items() if full <= now]
        for of in gone:
            del self.full[of]
        self._gone.update(gone)
        self._next = max(now + CLEAR_US, min(self.full.values(), default=0))

    def clears(self, now: int) -> bool:
        """Return whether rows can be deleted now; call it only when no earlier event is still undecided."""
        if self.full and now >= self._next:
            self.forget_full(now)
        return bool(self._gone)

    def clears_in(self, now: int) -> float | None:
        """Return the seconds until rows may be deleted; None while there are no rows."""
        if not self.full and not self._gone:
            return None
        return max(self._next - now, MICROS) / MICROS

    def gone(self) -> list[Any]:
        """Return the buckets whose rows can be deleted, a page at a time."""
        # In pages, so that no single commit deletes 100,000 rows.
        found = list(itertools.islice(self._gone, PAGE))
        self._gone.difference_update(found)
        return found

    def clear(self) -> None:
        """Remove everything."""
        self.full.clear()
        self._gone.clear()


class FlowLimiter:
    """Counts the running and started units of one function. On one event loop."""

    def __init__(self, spec: FunctionSpec) -> None:
        self._limit(spec)
        self._function = spec.name
        self._running = 0
        self._by_key: dict[Key, int] = {}
        self._full: dict[Key, int] = {}
        self._watchers: list[Callable[[Key], None]] = []

    def _limit(self, spec: FunctionSpec) -> None:
        self._concurrency, throttle = spec.concurrency, spec.throttle
        self._pace = (
            None if throttle is None else pace_of(throttle.limit, throttle.per, throttle.burst)
        )
        self._pace_per_key = throttle is not None and throttle.per_key

    def renew(self, spec: FunctionSpec, loaded: FlowLimiter) -> None:
        """Change the limits; active runs count against the new ones as well.

        Args:
            spec: The new version of the function.
            loaded: A limiter of it that was loaded from the store, for buckets that this one does not have.
        """
        # Memory is newer than the store, but only if it has buckets of the same kind.
        knows = self._pace is not None and loaded._pace_per_key == self._pace_per_key
        self._limit(spec)
        if not knows:
            self._full = loaded._full

    @property
    def is_open(self) -> bool:
        """Return whether nothing is limited."""
        return self._concurrency is None and self._pace is None

    @property
    def keeps_rows(self) -> bool:
        """Return whether starts must survive a crash."""
        return self._pace is not None

    @property
    def is_per_key(self) -> bool:
        """Return whether limits are per key."""
        limits = self._concurrency
        return self._pace_per_key or (limits is not None and limits.key_limit is not None)

    def until(self, now: int) -> int:
        """Return when the function may start a run: `now`, later, or `FOREVER` for when another one ends."""
        if self._concurrency is not None and self._running >= self._concurrency.limit:
            return FOREVER
        if self._pace is None or self._pace_per_key:
            return now
        return paced(self._pace, self._full.get(None, 0), now)

    def until_key(self, key: Key, now: int) -> int:
        """Return when the limits of this key allow a run to start."""
        limits = self._concurrency
        if (
            limits is not None
            and limits.key_limit is not None
            and self._by_key.get(key, 0) >= limits.key_limit
        ):
            return FOREVER
        if self._pace is None or not self._pace_per_key:
            return now
        return paced(self._pace, self._full.get(key, 0), now)

    def until_keys(self, keys: Iterable[Key], now: int) -> int:
        """Return when the limits of all these keys allow a run to start."""
        return max((self.until_key(key, now) for key in keys), default=now)

    def begin(self, keys: Collection[Key], now: int) -> None:
        """Count a run of these keys as started."""
        self._running += 1
        for key in keys:
            self._by_key[key] = self._by_key.get(key, 0) + 1
        if self._pace is not None:
            for key in keys if self._pace_per_key else (None,):
                self._full[key] = spent(self._pace, self._full.get(key, 0), now)
            # Keys are unbounded; full buckets need no entry, so this frees almost all of them.
            if len(self._full) > MAX_KEYS:
                self.forget_full(list(self._full), now)

    def forget_full(self, buckets: Iterable[Key], now: int) -> None:
        """Remove full buckets: they are equal to unused ones."""
        for bucket in buckets:
            if self._full.get(bucket, 0) <= now:
                self._full.pop(bucket, None)

    def end(self, keys: Collection[Key]) -> None:
        """Count a run of these keys as ended; notify the watchers."""
        self._running -= 1
        for key in keys:
            left = self._by_key[key] - 1
            if left:
                self._by_key[key] = left
            else:
                # Keys are unbounded, so those without a run are removed.
                del self._by_key[key]
        # After the counters, as a watcher may start the next run at once.
        for notify in self._watchers:
            for key in keys or (None,):
                notify(key)

    def watch(self, notify: Callable[[Key], None]) -> Callable[[], None]:
        """Call `notify` with a key whenever a run of it ends; return a function that removes the watcher."""
        self._watchers.append(notify)
        return lambda: self._watchers.remove(notify)

    # --- state that survives a crash ----------------------------------------------------------

    def full_again(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return when the buckets of a run of these keys are full again."""
        if self._pace is None:
            return {}
        return {of: self._full.get(of, 0) for of in (keys if self._pace_per_key else (None,))}

    async def load(self, storage: Storage, now: int) -> None:
        """Load the buckets from the store: of several rows of a bucket the latest time counts."""
        if self._pace is None:
            return
        prefix = throttle_rows_of(self._function)
        async for packed, value in rows_of(storage, prefix):
            bucket, full = key_of(_behind_partition(packed[len(prefix) :])), decode_full(value)
            if full > max(now, self._full.get(bucket, 0)):
                self._full[bucket] = full


class SampleFilter:
    """Decides which events of one partition the function's `Sample` leaves out."""

    def __init__(self, spec: FunctionSpec, streams: Sequence[str], partition: int) -> None:
        sample = spec.sample
        self._pace = None if sample is None else pace_of(sample.limit, sample.per, sample.limit)
        self._per_key = sample is not None and sample.per_key
        self._prefix = {name: pack("sample", spec.name, name, partition) for name in streams}
        self._buckets = BucketRefills()
        self._judged: dict[str, int] = {}
        self._newest = 0
        self._unsaved: set[tuple[str, Key]] = set()

    @property
    def is_open(self) -> bool:
        """Return whether everything passes."""
        return self._pace is None

    def filter(
        self, stream: str, chunks: Sequence[Chunk]
    ) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
        """Return the events that pass and those that are left out.

        Events that were decided before pass: had they been left out, they would be finished.
        """
        if self._pace is None:
            return tuple(chunks), ()
        passing: list[int] = []
        left_out: list[int] = []
        index = 0
        for chunk in chunks:
            self._newest = max(self._newest, chunk.appended)
            for place, event in enumerate(chunk.events(), start=chunk.low):
                offset = chunk.offset_of(place)
                # By the time of the append, not of the read: a repeated read then decides alike.
                passes = offset < self._judged.get(stream, 0) or self._spend(
                    self._pace, stream, event.key if self._per_key else None, chunk.appended
                )
                (passing if passes else left_out).append(index)
                # Stored with the buckets: after a crash the events that were decided before must
                # pass again.
                self._judged[stream] = max(self._judged.get(stream, 0), offset + 1)
                index += 1
        return pick(chunks, passing), pick(chunks, left_out)

    def _spend(self, pace: StartRate, stream: str, key: Key, at: int) -> bool:
        if paced(pace, self._buckets.full.get((stream, key), 0), at) > at:
            return False
        self._buckets.spend(pace, (stream, key), at)
        self._unsaved.add((stream, key))
        return True

    def unsaved(self) -> tuple[Row, ...]:
        """Return the rows to commit together with the positions of events that were left out."""
        gone = self._buckets.gone()
        if not (self._unsaved or gone):
            return ()
        rows: list[Row] = [
            Put(Space.META, self._prefix[stream] + b"\x00", encode_full(self._judged[stream]))
            for stream in {stream for stream, _ in self._unsaved}
        ]
        for stream, key in self._unsaved:
            full = self._buckets.full.get((stream, key), 0)
            rows.append(_full_row(self._place(stream, key), full, self._newest))
        self._unsaved.clear()
        rows += (Delete(Space.META, self._place(stream, key)) for stream, key in gone)
        if len(self._buckets.full) > MAX_KEYS:
            self._buckets.forget_full(self._newest)
        return tuple(rows)

    def clears(self, now: int) -> bool:
        """Return whether rows can be deleted now; call it only while no event waits for a decision."""
        return self._buckets.clears(now)

    def clears_in(self, now: int) -> float | None:
        """Return the seconds until rows may be deleted; None while there are no rows."""
        return self._buckets.clears_in(now)

    def _place(self, stream: str, key: Key) -> bytes:
        return self._prefix[stream] + b"\x01" + key_name(key)

    async def load(self, storage: Storage) -> None:
        """Load the rows from the store, in place of those in memory."""
        self._buckets.clear()
        self._judged.clear()
        self._unsaved.clear()
        if self._pace is None:
            return
        for stream, prefix in self._prefix.items():
            async for packed, value in rows_of(storage, prefix):
                name = packed[len(prefix) :]
                if name == b"\x00":
                    self._judged[stream] = decode_full(value)
                else:
                    self._buckets.full[stream, key_of(name[1:])] = decode_full(value)


def throttle_rows_of(function: str) -> bytes:
    """Return the prefix of a function's throttle rows; a stream, a partition and a key follow it."""
    return pack("starts", function)


def _behind_partition(name: bytes) -> bytes:
    """Return a row's name after the stream, whose name has no zero byte, and the partition."""
    return name[name.index(b"\x00") + 9 :]


def key_name(key: Key) -> bytes:
    """Return the row name of a key; None and the empty key have different names."""
    return pack(0) if key is None else b"\x01" + pack(key)


def key_of(name: bytes) -> Key:
    """Return the key of a row name."""
    return None if name == pack(0) else name[1:-1].replace(b"\x00\xff", b"\x00").decode()


def _full_row(place: bytes, full: int, now: int) -> Row:
    """Return the put of a bucket's row, or the deletion of a full one, which equals an unused one."""
    return Put(Space.META, place, encode_full(full)) if full > now else Delete(Space.META, place)


def encode_full(number: int) -> bytes:
    """Encode the time at which a bucket is full again."""
    return number.to_bytes(8, "big")


def decode_full(row: bytes) -> int:
    """Decode the time at which a bucket is full again."""
    return int.from_bytes(row, "big")


async def rows_of(storage: Storage, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield all rows of flow control under a prefix."""
    async for page in scan_pages(storage, Space.META, prefix, after(prefix), limit=PAGE):
        for pair in page:
            yield pair
