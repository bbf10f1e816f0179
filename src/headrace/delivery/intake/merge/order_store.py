"""Store of a merge's order, committed in one change with the positions.

Per function, streams and partition: a row for each kept pass, and one for owed pieces. In: a
merge's passes and the progress that is being committed. Out: puts and deletes. Nothing is written
while every stream has events. It decides nothing about the order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order import At, Memory, Owed, Piece, SkippedStream
from headrace.delivery.unit import runs
from headrace.model.effects import Change, Delete, Progress, Put, Space
from headrace.model.errors import Corrupt
from headrace.model.record import Chunk
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack

T = TypeVar("T")
_Done = tuple[int, frozenset[int]]
"""A watermark, and the finished offsets above it."""

MAX_PASSES = 100_000
"""Passes kept for one stream of a partition; beyond it the oldest are forgotten."""

TRIM_EVERY = 1_000
PAGE = 1_000
_TOP = (1 << 63) - 1
_WORD, _OWED, _PASSES = "merge", b"o", b"p"

_encoder = msgspec.msgpack.Encoder()
_cut_decoder = msgspec.msgpack.Decoder(tuple[int, ...])
_owed_decoder = msgspec.msgpack.Decoder(Owed)


class MergeOrderStore:
    """The stored order of one partition's merge. Owned by the partition worker that merges.

    Args:
        low: Gives the lowest offset that a stream still holds in this partition.
    """

    def __init__(
        self,
        storage: Storage,
        low: Callable[[str], Awaitable[int]],
        *,
        function: str,
        streams: Sequence[str],
        partition: int,
    ) -> None:
        self._storage = storage
        self._low = low
        self._streams = tuple(streams)
        self._index = {name: place for place, name in enumerate(streams)}
        self._function = function
        self._partition = partition
        self._prefix = _prefix(function, streams, partition)
        self._owed: Owed | None = None
        # Trim at the start too: an earlier owner may have died before it did.
        self._untrimmed = TRIM_EVERY

    @property
    def is_due(self) -> bool:
        """Return whether so many passes were stored since the last call of `trim` that it should be called."""
        return self._untrimmed >= TRIM_EVERY

    def follow(self, merge: Merge) -> None:
        """Store the order of this merge from now on."""
        self._merge = merge

    async def resume(self, watermarks: Mapping[str, int]) -> None:
        """Let the merge continue from these positions, in the stored order.

        Raises:
            Corrupt: A row cannot be decoded.
        """
        self._merge.resume(await self.load(watermarks))

    async def load(self, watermarks: Mapping[str, int]) -> Memory:
        """Load the stored order that still applies from these positions on.

        Raises:
            Corrupt: A row cannot be decoded.
        """
        row = await self._storage.get(Space.META, self._prefix + _OWED)
        owed = self._owed = None if row is None else _opened(_owed_decoder, row)
        cursors = [watermarks[name] for name in self._streams]
        if owed is not None:
            cursors = [max(pair) for pair in zip(cursors, owed.frontier, strict=True)]
        found: list[SkippedStream] = []
        for stream, cursor in enumerate(cursors):
            low = self._stream(stream)
            here = _place(low, cursor)
            async for page in scan_pages(self._storage, Space.META, low, here, limit=PAGE):
                found += _skipped(stream, page)
            # Of the passes that start before this position, the last one includes the earlier
            # ones.
            last = await self._storage.scan(Space.META, here, after(low), limit=1)
            found += _skipped(stream, last)
        return Memory(tuple(cursors), tuple(found), () if owed is None else owed.pieces)

    def rows(self, progress: Mapping[tuple[str, int], Progress]) -> tuple[Put | Delete, ...]:
        """Return the rows to commit with this progress, so that a later merge has the same order."""
        merge = self._merge
        found: list[Put | Delete] = []
        for at, kept in merge.passes.changes():
            key = self._key(at)
            if kept is None:
                found.append(Delete(Space.META, key))
            else:
                found.append(Put(Space.META, key, _encoder.encode(kept.cut)))
                self._untrimmed += 1
        owed = self._owing(merge, progress)
        if owed != self._owed:
            key = self._prefix + _OWED
            found.append(
                Delete(Space.META, key)
                if owed is None
                else Put(Space.META, key, _encoder.encode(owed))
            )
            self._owed = owed
        return tuple(found)

    def _owing(self, merge: Merge, progress: Mapping[tuple[str, int], Progress]) -> Owed | None:
        """Return the unfinished events that were handed out before a finished one; None if there are none."""
        out, before = merge.handed_out, self._owed
        done = {
            name: (known.watermark, frozenset(known.sparse))
            for name in self._streams
            for known in (progress[name, self._partition],)
        }
        # From the front only: the order of what is behind an unfinished event still matters.
        while out and not _left(out[0], done):
            out.popleft()
        if not any(len(_left(chunk, done)) < chunk.size for chunk in out) and (
            before is None or not any(self._is_left(piece, done) for piece in before.pieces)
        ):
            # All finished events came before the unfinished ones: a merge from there has the same
            # order by itself.
            return None
        frontier = tuple(merge.passes.cursors)
        if before is not None and before.frontier == frontier:
            # The same row, so that it is not written again; readers skip the pieces that are
            # finished by now.
            return before
        return Owed(
            frontier,
            tuple(
                Piece(self._index[chunk.stream], low, high)
                for chunk in out
                for low, high in runs(_left(chunk, done))
            ),
        )

    def _is_left(self, piece: Piece, done: Mapping[str, _Done]) -> bool:
        watermark, sparse = done[self._streams[piece.stream]]
        return any(at not in sparse for at in range(max(piece.low, watermark), piece.high))

    # --- bounds -----------------------------------------------------------------------------

    async def trim(self) -> None:
        """Delete passes about events that the logs do not hold any more, and the oldest beyond the bound."""
        self._untrimmed = 0
        lows = [await self._low(name) for name in self._streams]
        for stream in range(len(lows)):
            await self._trim(stream, lows)
        await self._forget_others()

    async def _trim(self, stream: int, lows: Sequence[int]) -> None:
        prefix = self._stream(stream)
        kept, is_last = 0, False
        async for page in scan_pages(self._storage, Space.META, prefix, after(prefix), limit=PAGE):
            gone: list[bytes] = []
            for key, row in page:
                one = SkippedStream(stream, _opened(_cut_decoder, row))
                if is_last or kept >= MAX_PASSES or one.is_over(lows):
                    gone.append(key)
                else:
                    kept += 1
                # The rows are sorted latest first, and each includes the earlier ones.
                is_last = is_last or one.offset <= lows[stream]
            await self._delete(gone)

    async def _forget_others(self) -> None:
        """Delete the order of other streams, which an earlier version of the function merged."""
        all_of_it, ours = pack(_WORD, self._function), _prefix(self._function, self._streams)
        for low, high in ((all_of_it, ours), (after(ours), after(all_of_it))):
            while low and (page := await self._storage.scan(Space.META, low, high, limit=PAGE)):
                await self._delete([key for key, _ in page])

    async def _delete(self, keys: Sequence[bytes]) -> None:
        if keys:
            await self._storage.apply(
                Change(deletes=tuple(Delete(Space.META, key) for key in keys))
            )

    # --- keys -------------------------------------------------------------------------------

    def _stream(self, stream: int) -> bytes:
        return self._prefix + _PASSES + pack(stream)

    def _key(self, at: At) -> bytes:
        return _place(self._stream(at[0]), at[1])


def forget_order(function: str, streams: Sequence[str], partition: int) -> tuple[Delete, ...]:
    """Return the deletions to commit with a moved position: no owed pieces apply there."""
    if len(streams) == 1:
        return ()
    return (Delete(Space.META, _prefix(function, streams, partition) + _OWED),)


async def copy_order(
    storage: Storage, of: str, to: str, streams: Sequence[str], partition: int
) -> None:
    """Replace the stored order of one function by that of another.

    Not atomic: after an interruption it must be repeated. Positions are moved only afterwards.
    """
    there, here = (_prefix(name, streams, partition) + _PASSES for name in (of, to))
    copied = set[bytes]()
    async for page in scan_pages(storage, Space.META, there, after(there), limit=PAGE):
        puts = [Put(Space.META, here + key[len(there) :], row) for key, row in page]
        await storage.apply(Change(puts=tuple(puts)))
        copied.update(put.key for put in puts)
    async for page in scan_pages(storage, Space.META, here, after(here), limit=PAGE):
        gone = [Delete(Space.META, key) for key, _ in page if key not in copied]
        if gone:
            await storage.apply(Change(deletes=tuple(gone)))


def _skipped(stream: int, rows: Iterable[tuple[bytes, bytes]]) -> list[SkippedStream]:
    """Decode the rows of a stream's passes."""
    return [SkippedStream(stream, _opened(_cut_decoder, row)) for _, row in rows]


def _left(chunk: Chunk, done: Mapping[str, _Done]) -> Sequence[int]:
    """Return the chunk's offsets that are not finished."""
    watermark, sparse = done[chunk.stream]
    if chunk.end <= watermark:
        return ()
    offsets = chunk.offsets or range(chunk.first, chunk.first + chunk.count)
    meant = offsets[chunk.low : chunk.high]
    if chunk.start >= watermark and not sparse:
        return meant
    return [at for at in meant if at >= watermark and at not in sparse]


def _prefix(function: str, streams: Sequence[str], *partition: int) -> bytes:
    return pack(_WORD, function, ",".join(streams), *partition)


def _place(stream: bytes, offset: int) -> bytes:
    """Return the key of an offset: the highest sorts first, so that a scan starts with the latest pass."""
    return stream + pack(_TOP - offset)


def _opened(decoder: msgspec.msgpack.Decoder[T], row: bytes) -> T:
    try:
        return decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the stored order of a merge is unreadable: {error}") from error
