"""Whom a merge has passed over, and where: all of its order that the logs alone do not say. Pure.

While every stream has a next event, the logs decide which goes first. When a stream has run dry and
the others go on without it, that is a *pass*: a decision of the moment. Where the dry stream then
speaks in time after all, the logs would have decided likewise and the pass is forgotten. Where it
speaks too late, the pass is kept, as the cut through the streams at which it ended: the stream's
own next event stood there, and goes after everything the others had before the cut. Whoever merges
the same logs again holds the stream back until then, and so comes by the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

import msgspec

Key = tuple[int, int]
"""What a merge goes by: an event's time, then its stream's place in the list."""

At = tuple[int, int]
"""A stream's place in the list, and the offset where it was passed over."""


class SkippedStream(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events of `stream` from its own place in `cut` on go after the others' before theirs."""

    stream: int
    cut: tuple[int, ...]

    @property
    def offset(self) -> int:
        """The first offset that it is about."""
        return self.cut[self.stream]

    def is_over(self, places: Sequence[int]) -> bool:
        """Whether the others have come to the cut (`places`: the next offset of each)."""
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
    """Events handed out before others that are finished already, in order; they go first.

    Attributes:
        frontier: Where the merge stood: everything before it had been handed out.
        pieces: What of it is not finished.
    """

    frontier: tuple[int, ...]
    pieces: tuple[Piece, ...]


class Memory(msgspec.Struct, frozen=True, gc=False):
    """What a merge begins with.

    Attributes:
        cursors: The next offset of each stream.
        passes: What was kept and may not be over yet.
        owed: What is to be handed out before anything else.
    """

    cursors: tuple[int, ...]
    passes: tuple[SkippedStream, ...] = ()
    owed: tuple[Piece, ...] = ()


class MergeOrder:
    """Owned by one `Merge`, which tells it what is taken and what arrives.

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
        """Begin where the store says."""
        self.cursors = list(memory.cursors)
        for one in sorted(memory.passes, key=lambda kept: kept.offset):
            self._ahead[one.stream].append(one)
            self._known.add((one.stream, one.offset))

    @property
    def is_following(self) -> bool:
        """Whether passes of an earlier run may still hold a stream back."""
        return any(self._ahead)

    def holds(self, stream: int, offset: int, places: Sequence[int]) -> bool:
        """Whether the stream, whose next event is at `offset`, was passed over here before."""
        ahead = self._ahead[stream]
        while ahead and ahead[0].offset <= offset:
            if not ahead[0].is_over(places):
                return True
            # The others only ever go forward: over once is over for good.
            ahead.popleft()
        return False

    def took(
        self, stream: int, end: int, key: Key, *, dry: Iterable[int], held: Collection[int]
    ) -> None:
        """An event was handed out while these streams were dry, of which `held` are held back."""
        if end > self.cursors[stream]:
            self.cursors[stream] = end
        for each in dry:
            self._top[each] = max(self._top.get(each, key), key)
            if each not in held:
                self._passed.add(each)

    def arrived(self, stream: int, key: Key) -> None:
        """A dry stream has spoken: was it passed over by anything that should have gone after it?"""
        top = self._top.pop(stream, None)
        if stream not in self._passed or top is None:
            return
        self._passed.discard(stream)
        at = stream, self.cursors[stream]
        is_kept = self._written.pop(at, None) is not None
        if key < top:
            self._changed[at] = tuple(self.cursors)
        elif is_kept and at not in self._known:
            self._changed[at] = None

    def lapse(self, stream: int, offset: int) -> None:
        """Nothing is to hold the stream back here any more."""
        ahead = self._ahead[stream]
        while ahead and ahead[0].offset <= offset:
            gone = ahead.popleft()
            self._changed[stream, gone.offset] = None

    def changes(self) -> list[tuple[At, SkippedStream | None]]:
        """What has to be kept since the last time (or, where it says None, forgotten).

        A stream that is being passed over now counts as too late until it speaks: should the
        process die, nobody would know any more what has gone before it.
        """
        for stream in self._passed:
            at, cut = (stream, self.cursors[stream]), tuple(self.cursors)
            if cut != self._written.get(at):
                self._changed[at] = self._written[at] = cut
        found = [
            (at, None if cut is None else SkippedStream(at[0], cut))
            for at, cut in self._changed.items()
        ]
        self._changed.clear()
        return found
