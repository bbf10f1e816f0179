"""What is finished in one partition: everything below the watermark, and some offsets above it.

Pure. Offsets finish in any order; the watermark is the contiguous prefix, which is what a commit
stores (with the sparse rest), so that a crash redelivers only what was not done.
"""

from __future__ import annotations

from bisect import insort

from headrace.model.effects import Progress
from headrace.model.record import Chunk


class Watermark:
    """Owned by one pump; grows by `finish`, is read by `progress`."""

    __slots__ = ("_gaps", "_sparse", "low")

    def __init__(self, progress: Progress) -> None:
        self.low = progress.watermark
        self._sparse = list(progress.sparse)
        self._gaps: list[tuple[int, int]] = []

    def progress(self) -> Progress:
        """The value a commit stores."""
        return Progress(self.low, tuple(self._sparse))

    def is_finished(self, offset: int) -> bool:
        """Whether this offset needs no more work."""
        return offset < self.low or (bool(self._sparse) and offset in self._sparse)

    @property
    def has_gaps(self) -> bool:
        """Whether some offset above the watermark is finished."""
        return bool(self._sparse)

    def finish_to(self, chunk: Chunk) -> None:
        """Finish every event meant by `chunk`.

        Offsets that a compacted stream no longer has are finished with their predecessor.
        """
        start, end = chunk.start, chunk.end
        if start <= self.low and (chunk.offsets is None or not self._sparse):
            self.low = max(self.low, end)
            self._close_up()
            return
        if chunk.offsets is None and not self._sparse:
            self._sparse.extend(range(start, end))
            return
        for index in range(chunk.low, chunk.high):
            self.finish(chunk.offset_of(index))

    def finish(self, offset: int) -> None:
        """Finish one offset."""
        if offset < self.low or offset in self._sparse:
            return
        if offset == self.low:
            self.low += 1
            self._close_up()
        else:
            insort(self._sparse, offset)

    def skip(self, low: int, high: int) -> None:
        """Offsets `[low, high)` do not exist (retention, compaction): they need no work."""
        if high <= self.low:
            return
        if low <= self.low:
            self.low = high
            self._sparse = [known for known in self._sparse if known >= high]
        else:
            insort(self._gaps, (low, high))
        self._close_up()

    def _close_up(self) -> None:
        sparse, gaps = self._sparse, self._gaps
        if not sparse and not gaps:
            return
        while True:
            before = self.low
            count = 0
            for offset in sparse:
                if offset > self.low:
                    break
                self.low = max(self.low, offset + 1)
                count += 1
            del sparse[:count]
            while gaps and gaps[0][0] <= self.low:
                self.low = max(self.low, gaps.pop(0)[1])
            if self.low == before:
                return
