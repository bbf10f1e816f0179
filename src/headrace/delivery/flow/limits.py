"""When a function may run: how many at once and how often, as a whole and per key.

`FlowLimiter` is shared by the partition workers of a function on a node; it answers at once and never waits. `SampleFilter`
belongs to one partition worker and says which events are left out because of a `Sample`. Both work on `paced`, a
token bucket in one number (the generic cell rate algorithm, ITU-T I.371): the time at which a bucket
would be full again. What a crash must not forget is handed over as rows that ride in a commit: by the
filter itself, and for the limiter by the `ThrottleRows` of each partition.
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
"""How often full buckets are looked for: their rows say nothing any more."""

Row = Put | Delete
Key = str | None


class StartRate(msgspec.Struct, frozen=True):
    """A token bucket: one token every `step` microseconds, room for `burst` of them."""

    step: int
    burst: int


def paced(pace: StartRate, full: int, now: int) -> int:
    """When the next may begin (`now` or later), the bucket being full again at `full`."""
    return max(now, _believed(pace, full, now) - pace.step * (pace.burst - 1))


def spent(pace: StartRate, full: int, now: int) -> int:
    """When the bucket is full again, one token having been taken at `now`."""
    return max(_believed(pace, full, now), now) + pace.step


def _believed(pace: StartRate, full: int, now: int) -> int:
    """`full`, unless no bucket can be so empty: then the clock was set back since it was written.

    A bucket that is not believed is a full one: nobody waits, or is left out, for as long as that.
    """
    return full if full <= now + pace.step * pace.burst else 0


def pace_of(limit: int, per: float, burst: int) -> StartRate:
    """The bucket of `limit` in `per` seconds."""
    return StartRate(max(int(per * MICROS / limit), 1), burst)


class BucketRefills:
    """When buckets are full again, by what they are of, and which of their rows can go."""

    def __init__(self) -> None:
        self.full: dict[Any, int] = {}
        self._gone: set[Any] = set()
        self._next = 0

    def spend(self, pace: StartRate, of: Any, now: int) -> None:
        """Take a token out of a bucket."""
        self.put(of, spent(pace, self.full.get(of, 0), now))

    def put(self, of: Any, full: int) -> None:
        """The bucket is full again at `full`, and a row says so."""
        self.full[of] = full
        self._gone.discard(of)

    def found(self, of: Any, full: int, now: int) -> None:
        """The store has a row of this bucket."""
        if full > now:
            self.full[of] = full
        else:
            self._gone.add(of)

    def forget_full(self, now: int) -> None:
        """Let go of buckets that are full, and remember that their rows can go."""
        gone = [of for of, full in self.full.items() if full <= now]
        for of in gone:
            del self.full[of]
        self._gone.update(gone)
        self._next = max(now + CLEAR_US, min(self.full.values(), default=0))

    def clears(self, now: int) -> bool:
        """Whether rows can go now; to be asked while no event of before now is still to be judged."""
        if self.full and now >= self._next:
            self.forget_full(now)
        return bool(self._gone)

    def clears_in(self, now: int) -> float | None:
        """Seconds until it is worth asking again; None while there are no rows."""
        if not self.full and not self._gone:
            return None
        return max(self._next - now, MICROS) / MICROS

    def gone(self) -> list[Any]:
        """The buckets whose rows can go, a page of them at a time."""
        found = list(itertools.islice(self._gone, PAGE))
        self._gone.difference_update(found)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self.full.clear()
        self._gone.clear()


class FlowLimiter:
    """How much of one function runs now, and how often it began. On one event loop."""

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
        """Go on by other limits; what runs now counts against them as well.

        Args:
            spec: The function as it is from now on.
            loaded: A flow of it that has read what the store holds, for buckets that we do not know.
        """
        knows = self._pace is not None and loaded._pace_per_key == self._pace_per_key
        self._limit(spec)
        if not knows:
            self._full = loaded._full

    @property
    def is_open(self) -> bool:
        """Whether nothing is limited."""
        return self._concurrency is None and self._pace is None

    @property
    def keeps_rows(self) -> bool:
        """Whether a crash must not forget how often it began."""
        return self._pace is not None

    @property
    def is_per_key(self) -> bool:
        """Whether keys have limits of their own."""
        limits = self._concurrency
        return self._pace_per_key or (limits is not None and limits.key_limit is not None)

    def until(self, now: int) -> int:
        """When the function may begin a run: `now`, later, or `FOREVER`: when another one ends."""
        if self._concurrency is not None and self._running >= self._concurrency.limit:
            return FOREVER
        if self._pace is None or self._pace_per_key:
            return now
        return paced(self._pace, self._full.get(None, 0), now)

    def until_key(self, key: Key, now: int) -> int:
        """When a run that holds this key may begin, as far as the key is concerned."""
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
        """When a run that holds all these keys may begin, as far as they are concerned."""
        return max((self.until_key(key, now) for key in keys), default=now)

    def begin(self, keys: Collection[Key], now: int) -> None:
        """A run that holds these keys begins."""
        self._running += 1
        for key in keys:
            self._by_key[key] = self._by_key.get(key, 0) + 1
        if self._pace is not None:
            for key in keys if self._pace_per_key else (None,):
                self._full[key] = spent(self._pace, self._full.get(key, 0), now)
            if len(self._full) > MAX_KEYS:
                self.forget_full(list(self._full), now)

    def forget_full(self, buckets: Iterable[Key], now: int) -> None:
        """Let go of those that are full: a full bucket is like one that was never used."""
        for bucket in buckets:
            if self._full.get(bucket, 0) <= now:
                self._full.pop(bucket, None)

    def end(self, keys: Collection[Key]) -> None:
        """It has ended; whoever waits for its place is told."""
        self._running -= 1
        for key in keys:
            left = self._by_key[key] - 1
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]
        for told in self._watchers:
            for key in keys or (None,):
                told(key)

    def watch(self, told: Callable[[Key], None]) -> Callable[[], None]:
        """Call `told` with a key whenever a run that held it ends; the answer ends that."""
        self._watchers.append(told)
        return lambda: self._watchers.remove(told)

    # --- what a crash must not forget ---------------------------------------------------------

    def full_again(self, keys: Iterable[Key]) -> dict[Key, int]:
        """When the buckets are full again that a run of these keys takes a token from."""
        if self._pace is None:
            return {}
        return {of: self._full.get(of, 0) for of in (keys if self._pace_per_key else (None,))}

    async def load(self, storage: Storage, now: int) -> None:
        """Go on where the store says: each bucket's latest row is true."""
        if self._pace is None:
            return
        prefix = throttle_rows_of(self._function)
        async for packed, value in rows_of(storage, prefix):
            bucket, full = key_of(_behind_partition(packed[len(prefix) :])), decode_full(value)
            if full > max(now, self._full.get(bucket, 0)):
                self._full[bucket] = full


class SampleFilter:
    """Which events of one partition are left out because of the function's `Sample`."""

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
        """Whether everything passes."""
        return self._pace is None

    def sift(
        self, stream: str, chunks: Sequence[Chunk]
    ) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
        """What passes and what is left out.

        What was judged before is not judged again: had it been left out, it would be finished.
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
                passes = offset < self._judged.get(stream, 0) or self._spend(
                    self._pace, stream, event.key if self._per_key else None, chunk.appended
                )
                (passing if passes else left_out).append(index)
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
        """Rows that must ride with the positions that say what was left out."""
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
        """Whether rows can go now; to be asked while there is nothing to judge."""
        return self._buckets.clears(now)

    def clears_in(self, now: int) -> float | None:
        """Seconds until it is worth asking again; None while there are no rows."""
        return self._buckets.clears_in(now)

    def _place(self, stream: str, key: Key) -> bytes:
        return self._prefix[stream] + b"\x01" + key_name(key)

    async def load(self, storage: Storage) -> None:
        """Begin (again) at what the store says."""
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
    """Where the rows of a function's throttle begin; each goes on with a stream, a partition and a key."""
    return pack("starts", function)


def _behind_partition(name: bytes) -> bytes:
    """What is left of a row's name behind the stream, whose names have no zero byte, and the partition."""
    return name[name.index(b"\x00") + 9 :]


def key_name(key: Key) -> bytes:
    """A key's place among rows; one that tells no key from the empty key."""
    return pack(0) if key is None else b"\x01" + pack(key)


def key_of(name: bytes) -> Key:
    """The key whose place that is."""
    return None if name == pack(0) else name[1:-1].replace(b"\x00\xff", b"\x00").decode()


def _full_row(place: bytes, full: int, now: int) -> Row:
    """A bucket that is full is like one that was never used."""
    return Put(Space.META, place, encode_full(full)) if full > now else Delete(Space.META, place)


def encode_full(number: int) -> bytes:
    """The row of a bucket that is full again then."""
    return number.to_bytes(8, "big")


def decode_full(row: bytes) -> int:
    """When the bucket of a row is full again."""
    return int.from_bytes(row, "big")


async def rows_of(storage: Storage, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """All rows of flow control under a prefix."""
    async for page in scan_pages(storage, Space.META, prefix, after(prefix), limit=PAGE):
        for pair in page:
            yield pair
