"""Batcher: closes a batch on count, bytes or window. Pure: the caller passes the time.

In: chunks as the log stored them. Out: chunks that are cut to batches. A blob that is needed only in part is split once,
without decoding an event, so that no instance receives events that it does not need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from headrace.delivery.intake.base import Intake
from headrace.model.record import Chunk

_splitter = msgspec.msgpack.Decoder(list[msgspec.Raw])
_FIXED, _SHORT = 16, 65_536


class Batcher(Intake):
    """The events of one partition that wait to be batched. Owned by one partition worker."""

    def __init__(self, *, events: int, size: int, window: float) -> None:
        self._limit = events
        self._size = size
        self._window = window
        self._chunks: deque[Chunk] = deque()
        # The split head blob: kept, as a blob that is cut into many batches would otherwise be
        # split for each.
        self._raws: list[msgspec.Raw] | None = None
        self._events = 0
        self._opened = 0.0

    def __len__(self) -> int:
        return self._events

    @property
    def is_ready(self) -> bool:
        """Return whether a whole batch waits."""
        return self._events >= self._limit

    def wanting(self) -> tuple[int, ...]:
        """Return reader 0, unless a whole batch waits already."""
        return (0,) if self._events < self._limit else ()

    def add(self, reader: int, chunks: Sequence[Chunk], started: float) -> None:
        """Add chunks of reader 0; a window `started` then (monotonic)."""
        if not self._events:
            self._opened = started
        for chunk in chunks:
            self._chunks.append(chunk)
            self._events += chunk.size

    def wait(self, now: float) -> float | None:
        """Return the seconds until a batch closes: 0 for now, None if there is nothing to close."""
        if not self._events:
            return None
        if self._events >= self._limit or self._window <= 0:
            return 0.0
        return max(self._opened + self._window - now, 0.0)

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """Return the next batch, in order, or as many whole ones; empty if nothing waits.

        Several together are not larger, in bytes, than one may be.
        """
        if self._chunks and self._raws is None:
            # The fast path: a blob that was published as a whole batch is passed on without being
            # split.
            head = self._chunks[0]
            if head.size == head.count == self._limit and len(head.body) <= self._size:
                return self._blobs(now, batches)
        taken: list[Chunk] = []
        count_left = self._limit
        if batches > 1:
            count_left *= max(min(batches, self._events // count_left), 1)
        bytes_left = self._size
        while self._chunks and count_left > 0 and (bytes_left > 0 or not taken):
            head = self._chunks[0]
            if (
                head.size <= count_left
                and len(head.body) <= max(bytes_left, 1)
                and self._raws is None
            ):
                taken.extend(compact((self._chunks.popleft(),)))
                count_left -= head.size
                bytes_left -= len(head.body)
                continue
            # At least one event per batch even if it is larger than the limit: otherwise it would
            # never be delivered.
            piece, rest = self._cut(head, count_left, bytes_left, first=not taken)
            if piece is None:
                break
            taken.append(piece)
            count_left -= piece.size
            bytes_left -= len(piece.body)
            if rest is None:
                self._chunks.popleft()
                self._raws = None
            else:
                self._chunks[0] = rest
        self._events -= sum(chunk.size for chunk in taken)
        self._opened = now
        return tuple(taken)

    def _blobs(self, now: float, batches: int) -> tuple[Chunk, ...]:
        """Return blobs that are each a whole batch."""
        taken: list[Chunk] = []
        bytes_left = self._size
        while self._chunks and len(taken) < batches:
            head = self._chunks[0]
            bytes_left -= len(head.body)
            if bytes_left < 0 or not head.size == head.count == self._limit:
                break
            taken.append(self._chunks.popleft())
        self._events -= self._limit * len(taken)
        self._opened = now
        return tuple(taken)

    def _cut(
        self, head: Chunk, count_left: int, bytes_left: int, *, first: bool
    ) -> tuple[Chunk | None, Chunk | None]:
        """Return as many of the head's events as fit, at least one in an empty batch, and the rest."""
        if self._raws is None:
            self._raws = split(head.body)
        raws = self._raws
        high = head.low
        while high < head.high and high - head.low < count_left:
            bytes_left -= len(memoryview(raws[high]))
            if bytes_left < 0 and not (first and high == head.low):
                break
            high += 1
        if high == head.low:
            return None, head
        piece = _piece(head, raws, head.low, high)
        return piece, head.window(high, head.high) if high < head.high else None


def compact(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Return chunks whose blobs hold only the selected events; each blob is split once."""
    opened: dict[int, list[msgspec.Raw]] = {}
    found: list[Chunk] = []
    for chunk in chunks:
        if chunk.size == chunk.count:
            found.append(chunk)
            continue
        raws = opened.get(id(chunk.body))
        if raws is None:
            raws = opened[id(chunk.body)] = split(chunk.body)
        found.append(_piece(chunk, raws, chunk.low, chunk.high))
    return tuple(found)


def split(body: bytes) -> list[msgspec.Raw]:
    """Split a blob into its encoded events."""
    return _splitter.decode(body)


def assemble(raws: Sequence[msgspec.Raw]) -> bytes:
    """Join encoded events to a blob."""
    return _array_head(len(raws)) + b"".join(raws)


def _piece(chunk: Chunk, raws: list[msgspec.Raw], low: int, high: int) -> Chunk:
    count = high - low
    body = assemble(raws[low:high])
    offsets = None if chunk.offsets is None else chunk.offsets[low:high]
    return Chunk(
        chunk.stream,
        chunk.partition,
        chunk.offset_of(low),
        count,
        body,
        chunk.appended,
        0,
        count,
        chunk.hops,
        chunk.origin,
        offsets,
    )


def _array_head(count: int) -> bytes:
    """Return the head of a msgpack array (msgpack specification, "array format family")."""
    if count < _FIXED:
        return bytes((0x90 | count,))
    if count < _SHORT:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")
