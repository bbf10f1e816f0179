"""Closes a batch on count, bytes or window. Pure: time is handed in, nothing waits here.

Chunks go in as the log stored them and come out cut to batches. A blob of which only a part is meant
is cut open once, without decoding a single event, so that no instance is sent what it does not need.
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
        self._raws: list[msgspec.Raw] | None = None
        self._events = 0
        self._opened = 0.0

    def __len__(self) -> int:
        return self._events

    @property
    def is_ready(self) -> bool:
        """Whether a whole batch waits."""
        return self._events >= self._limit

    def wanting(self) -> tuple[int, ...]:
        """Which readers to ask for more: reader 0, unless a whole batch waits already."""
        return (0,) if self._events < self._limit else ()

    def add(self, reader: int, chunks: Sequence[Chunk], begun: float) -> None:
        """Take what reader 0 read; a window has begun then (monotonic)."""
        if not self._events:
            self._opened = begun
        for chunk in chunks:
            self._chunks.append(chunk)
            self._events += chunk.size

    def wait(self, now: float) -> float | None:
        """Seconds until a batch closes: 0 for at once, None where there is nothing to close."""
        if not self._events:
            return None
        if self._events >= self._limit or self._window <= 0:
            return 0.0
        return max(self._opened + self._window - now, 0.0)

    def take(self, now: float, batches: int = 1) -> tuple[Chunk, ...]:
        """The next batch, in order, or as many whole ones; empty where nothing waits.

        Several together are no larger, in bytes, than one may be.
        """
        if self._chunks and self._raws is None:
            # The straight road: a blob as it was published is a batch.
            head = self._chunks[0]
            if head.size == head.count == self._limit and len(head.body) <= self._size:
                return self._blobs(now, batches)
        taken: list[Chunk] = []
        room = self._limit
        if batches > 1:
            room *= max(min(batches, self._events // room), 1)
        space = self._size
        while self._chunks and room > 0 and (space > 0 or not taken):
            head = self._chunks[0]
            if head.size <= room and len(head.body) <= max(space, 1) and self._raws is None:
                taken.extend(compact((self._chunks.popleft(),)))
                room -= head.size
                space -= len(head.body)
                continue
            piece, rest = self._cut(head, room, space, first=not taken)
            if piece is None:
                break
            taken.append(piece)
            room -= piece.size
            space -= len(piece.body)
            if rest is None:
                self._chunks.popleft()
                self._raws = None
            else:
                self._chunks[0] = rest
        self._events -= sum(chunk.size for chunk in taken)
        self._opened = now
        return tuple(taken)

    def _blobs(self, now: float, batches: int) -> tuple[Chunk, ...]:
        """Blobs that are each a batch as they stand."""
        taken: list[Chunk] = []
        space = self._size
        while self._chunks and len(taken) < batches:
            head = self._chunks[0]
            space -= len(head.body)
            if space < 0 or not head.size == head.count == self._limit:
                break
            taken.append(self._chunks.popleft())
        self._events -= self._limit * len(taken)
        self._opened = now
        return tuple(taken)

    def _cut(
        self, head: Chunk, room: int, space: int, *, first: bool
    ) -> tuple[Chunk | None, Chunk | None]:
        """As many of the head's events as fit; at least one in an empty batch."""
        if self._raws is None:
            self._raws = split(head.body)
        raws = self._raws
        high = head.low
        while high < head.high and high - head.low < room:
            space -= len(memoryview(raws[high]))
            if space < 0 and not (first and high == head.low):
                break
            high += 1
        if high == head.low:
            return None, head
        piece = _piece(head, raws, head.low, high)
        return piece, head.window(high, head.high) if high < head.high else None


def compact(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Chunks whose blobs hold only the events meant; each blob is opened once."""
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
    """A blob's events, each still encoded."""
    return _splitter.decode(body)


def assemble(raws: Sequence[msgspec.Raw]) -> bytes:
    """The blob of events that are still encoded."""
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
    """The head of a msgpack array (msgpack specification, "array format family")."""
    if count < _FIXED:
        return bytes((0x90 | count,))
    if count < _SHORT:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")
