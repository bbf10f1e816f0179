"""Finished offsets of one partition: everything below the watermark, and some offsets above it.

Pure. Offsets finish in any order; the watermark is the end of the contiguous prefix. A commit
stores both, so that a crash redelivers only unfinished events.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection

from headrace.model.effects import Progress
from headrace.model.record import Chunk

MAX_TAKEN_BACK = 20_000
"""How far below the watermark an offset may be taken back: all offsets above it are then stored one by one."""


class Watermark:
    """Owned by one partition worker; changed by `finish`, read by `progress`."""

    __slots__ = ("_gaps", "_sparse", "low")

    def __init__(self, progress: Progress) -> None:
        self.low = progress.watermark
        self._sparse = set(progress.sparse)
        self._gaps: list[tuple[int, int]] = []

    def progress(self) -> Progress:
        """Return the value that a commit stores."""
        return Progress(self.low, tuple(sorted(self._sparse)) if self._sparse else ())

    def is_finished(self, offset: int) -> bool:
        """Return whether this offset is finished."""
        return offset < self.low or offset in self._sparse

    def finished_in(self, low: int, high: int) -> int:
        """Return how many of the offsets `[low, high)` are finished."""
        below = min(max(self.low - low, 0), high - low)
        return below + sum(1 for offset in self._sparse if max(low, self.low) <= offset < high)

    @property
    def has_gaps(self) -> bool:
        """Return whether some offset above the watermark is finished."""
        return bool(self._sparse)

    def finish_to(self, chunk: Chunk) -> None:
        """Finish every event of `chunk`'s window."""
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
        """Mark offsets as unfinished again; return False, without a change, if they are too far back."""
        lowest = min(offsets)
        if self.low - lowest > MAX_TAKEN_BACK:
            return False
        # The offsets above the lowest one stay finished, now one by one.
        self._sparse.update(range(lowest, self.low))
        self._sparse.difference_update(offsets)
        self.low = min(self.low, lowest)
        return True

    def skip(self, low: int, high: int) -> None:
        """Note that offsets `[low, high)` do not exist (retention, compaction)."""
        if high <= self.low or high <= low:
            return
        if low <= self.low:
            self.low = high
        else:
            # Kept as ranges: a compacted log may have gaps of millions of offsets.
            insort(self._gaps, (low, high))
        self._close_up()

    def _close_up(self) -> None:
        """Move the watermark over offsets that are finished or do not exist."""
        sparse, gaps = self._sparse, self._gaps
        while sparse or gaps:
            if self.low in sparse:
                sparse.discard(self.low)
                self.low += 1
            elif gaps and gaps[0][0] <= self.low:
                self.low = max(self.low, gaps.pop(0)[1])
            else:
                break
        # A skipped range may contain offsets that were finished one by one.
        if sparse and min(sparse) < self.low:
            self._sparse = {offset for offset in sparse if offset > self.low}
