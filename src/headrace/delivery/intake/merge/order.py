"""Order of a merge, as far as the logs alone do not define it: which streams were passed over, and where. Pure.

While every stream has a next event, the logs decide which goes first. When a stream is empty and
the others continue without it, that is a *pass*, which depends on timing. If the empty stream then
gets an event that is in order anyway, the pass is dropped. If the event is late, the pass is kept,
as the cut through the streams at which it ended: the stream's next event goes after all events that
the others had before the cut. A later merge of the same logs holds the stream back until then, and
so has the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

import msgspec

Key = tuple[int, int]
"""The sort key of a merge: an event's time, then its stream's index in the list."""

At = tuple[int, int]
"""A stream's index in the list, and the offset at which it was passed over."""


class SkippedStream(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events of `stream` from its offset in `cut` on go after the other streams' events before their offsets in it."""

    stream: int
    cut: tuple[int, ...]

    @property
    def offset(self) -> int:
        """Return the first offset of the stream that it applies to."""
        return self.cut[self.stream]

    def is_over(self, places: Sequence[int]) -> bool:
        """Return whether the other streams have reached the cut (`places`: the next offset of each)."""
        return all(
            place >= end
            for stream, (place, end) in enumerate(zip(places, self.cut, strict=True))
            if stream != self.stream
        )


class Piece(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Offsets `[low, high)` of `stream`."""

    stream: int
    low: int
    high: int


class Owed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events that were handed out before others that are already finished, in order; they go first.

    Attributes:
        frontier: The position of the merge: everything before it had been handed out.
        pieces: The part of it that is not finished.
    """

    frontier: tuple[int, ...]
    pieces: tuple[Piece, ...]


class Memory(msgspec.Struct, frozen=True, gc=False):
    """The stored state from which a merge starts.

    Attributes:
        cursors: The next offset of each stream.
        passes: The kept passes that may still apply.
        owed: The pieces to hand out before anything else.
    """

    cursors: tuple[int, ...]
    passes: tuple[SkippedStream, ...] = ()
    owed: tuple[Piece, ...] = ()


class MergeOrder:
    """Owned by one `Merge`, which reports what is taken and what arrives.

    Attributes:
        cursors: For each stream, the offset after the last one handed out.
    """

    def __init__(self, streams: int) -> None:
        self.cursors = [0] * streams
        self._ahead: list[deque[SkippedStream]] = [deque() for _ in range(streams)]
        self._known: set[At] = set()
        self._top: dict[int, Key] = {}
        self._passed: set[int] = set()
        self._written: dict[At, tuple[int, ...]] = {}
        self._changed: dict[At, tuple[int, ...] | None] = {}

    def recall(self, memory: Memory) -> None:
        """Start from the stored state."""
        self.cursors = list(memory.cursors)
        # Sorted, as `holds` looks only at the first of a stream.
        for one in sorted(memory.passes, key=lambda kept: kept.offset):
            self._ahead[one.stream].append(one)
            self._known.add((one.stream, one.offset))

    @property
    def is_following(self) -> bool:
        """Return whether passes of an earlier run may still hold a stream back."""
        return any(self._ahead)

    def holds(self, stream: int, offset: int, places: Sequence[int]) -> bool:
        """Return whether the stream, whose next event is at `offset`, was passed over here before."""
        ahead = self._ahead[stream]
        while ahead and ahead[0].offset <= offset:
            if not ahead[0].is_over(places):
                return True
            # Offsets only grow: a cut that was reached stays reached.
            ahead.popleft()
        return False

    def took(
        self, stream: int, end: int, key: Key, *, dry: Iterable[int], held: Collection[int]
    ) -> None:
        """Note that an event was handed out while these streams were empty, of which `held` are held back."""
        if end > self.cursors[stream]:
            self.cursors[stream] = end
        for each in dry:
            self._top[each] = max(self._top.get(each, key), key)
            # A stream that an earlier pass holds back is not passed over again.
            if each not in held:
                self._passed.add(each)

    def arrived(self, stream: int, key: Key) -> None:
        """Note the next event of an empty stream; keep the pass if a later event went before it."""
        top = self._top.pop(stream, None)
        if stream not in self._passed or top is None:
            return
        self._passed.discard(stream)
        at = stream, self.cursors[stream]
        is_kept = self._written.pop(at, None) is not None
        # The event should have gone before one that was already handed out.
        if key < top:
            self._changed[at] = tuple(self.cursors)
        # It was in order after all: the logs alone give the same result, so the stored pass can
        # go.
        elif is_kept and at not in self._known:
            self._changed[at] = None

    def lapse(self, stream: int, offset: int) -> None:
        """Drop the passes that hold the stream back here."""
        ahead = self._ahead[stream]
        while ahead and ahead[0].offset <= offset:
            gone = ahead.popleft()
            self._changed[stream, gone.offset] = None

    def changes(self) -> list[tuple[At, SkippedStream | None]]:
        """Return the passes to store since the last call, or to delete where the value is None.

        A stream that is being passed over now counts as late until its next event: after a crash it
        would be unknown which events went before it.
        """
        for stream in self._passed:
            at, cut = (stream, self.cursors[stream]), tuple(self.cursors)
            # Only a cut that has moved is written, not one with every commit.
            if cut != self._written.get(at):
                self._changed[at] = self._written[at] = cut
        found = [
            (at, None if cut is None else SkippedStream(at[0], cut))
            for at, cut in self._changed.items()
        ]
        self._changed.clear()
        return found
