"""What is finished in one partition: everything below the watermark, and some offsets above it.

Pure. Offsets finish in any order; the watermark is the contiguous prefix, which is what a commit
stores (with the sparse rest), so that a crash redelivers only what was not done.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection

from headrace.model.effects import Progress
from headrace.model.record import Chunk

MAX_TAKEN_BACK = 20_000
"""How far below the watermark an offset may be that is taken back: every one above it is then noted."""


class Watermark:
    """Owned by one partition worker; grows by `finish`, is read by `progress`."""

    __slots__ = ("_gaps", "_sparse", "low")

    def __init__(self, progress: Progress) -> None:
        self.low = progress.watermark
        self._sparse = set(progress.sparse)
        self._gaps: list[tuple[int, int]] = []

    def progress(self) -> Progress:
        """The value a commit stores."""
        return Progress(self.low, tuple(sorted(self._sparse)) if self._sparse else ())

    def is_finished(self, offset: int) -> bool:
        """Whether this offset needs no more work."""
        return offset < self.low or offset in self._sparse

    def finished_in(self, low: int, high: int) -> int:
        """How many of the offsets `[low, high)` need no more work."""
        below = min(max(self.low - low, 0), high - low)
        return below + sum(1 for offset in self._sparse if max(low, self.low) <= offset < high)

    @property
    def has_gaps(self) -> bool:
        """Whether some offset above the watermark is finished."""
        return bool(self._sparse)

    def finish_to(self, chunk: Chunk) -> None:
        """Finish every event meant by `chunk`."""
        if chunk.offsets is not None:
            for index in range(chunk.low, chunk.high):
                self.finish(chunk.offset_of(index))
            return
        start, end = chunk.start, chunk.end
        if start > self.low:
            self._sparse.update(range(start, end))
        elif end > self.low:
            self.low = end
            self._close_up()

    def finish(self, offset: int) -> None:
        """Finish one offset."""
        if offset == self.low:
            self.low += 1
            self._close_up()
        elif offset > self.low:
            self._sparse.add(offset)

    def take_back(self, offsets: Collection[int]) -> bool:
        """These offsets are not finished after all; False, and nothing done, where that is too far."""
        lowest = min(offsets)
        if self.low - lowest > MAX_TAKEN_BACK:
            return False
        self._sparse.update(range(lowest, self.low))
        self._sparse.difference_update(offsets)
        self.low = min(self.low, lowest)
        return True

    def skip(self, low: int, high: int) -> None:
        """Offsets `[low, high)` do not exist (retention, compaction): they need no work."""
        if high <= self.low or high <= low:
            return
        if low <= self.low:
            self.low = high
        else:
            insort(self._gaps, (low, high))
        self._close_up()

    def _close_up(self) -> None:
        """Let the watermark run on over what is finished above it, or does not exist."""
        sparse, gaps = self._sparse, self._gaps
        while sparse or gaps:
            if self.low in sparse:
                sparse.discard(self.low)
                self.low += 1
            elif gaps and gaps[0][0] <= self.low:
                self.low = max(self.low, gaps.pop(0)[1])
            else:
                break
        if sparse and min(sparse) < self.low:
            self._sparse = {offset for offset in sparse if offset > self.low}
