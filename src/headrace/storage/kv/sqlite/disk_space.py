"""Free disk space: a reserve for when the disk is full, and the choice of who may still write.

While space is short, changes that only append (producers) are refused, and changes that finish
something (consumers) use the reserve that was deleted for them, so that a full disk drains
instead of jamming. The reserve comes back by itself once there is space again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from headrace.environment.clock import Clock

RESERVE_NAME = "headrace.reserve"
RESERVE_BYTES = 8 << 20
LOW_WATER_BYTES = 8 << 20
# A statvfs costs microseconds, but groups come thousands of times a second.
LOOK_EVERY_SECONDS = 0.25


class DiskSpace:
    """Checks the free disk space. Called by the storage before every group."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        reusable: Callable[[], int],
        *,
        reserve: int = RESERVE_BYTES,
    ) -> None:
        """Look at the disk for the first time.

        Args:
            folder: Where the reserve is kept.
            clock: The source of time.
            reusable: Bytes within the store's own file that are free to be written again: what
                retention removes comes back there, not to the disk.
            reserve: Bytes to keep for bad times.
        """
        self._folder = folder
        self._reusable = reusable
        self._path = folder / RESERVE_NAME
        self._clock = clock
        self._reserve = reserve
        self._looked = clock.monotonic() - LOOK_EVERY_SECONDS
        self.low = False
        self.look()

    def look(self) -> bool:
        """Return True while space is short, as of at most `LOOK_EVERY_SECONDS` ago."""
        now = self._clock.monotonic()
        if now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            found = os.statvfs(self._folder)
            # f_bavail, not f_bfree: blocks reserved for root are not ours to fill.
            free = found.f_bavail * found.f_frsize
            usable = free + self._reusable()
            if not self.low and usable < LOW_WATER_BYTES:
                self.shed()
            # Twice the mark that set it: without the gap producers would be let in and refused in
            # turns.
            elif self.low and usable > 2 * LOW_WATER_BYTES:
                self.low = False
            # Restoring must not bring the space below the mark again, or it would be given up at
            # once.
            if usable - self._reserve > 2 * LOW_WATER_BYTES and free > self._reserve:
                self._restore()
        return self.low

    def shed(self) -> bool:
        """Give the reserve to those who finish work; False where it was given already."""
        self.low = True
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _restore(self) -> None:
        if self._path.exists() and self._path.stat().st_size >= self._reserve:
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A sparse file would reserve nothing: blocks are allocated now.
            os.posix_fallocate(handle, 0, self._reserve)
        except OSError:
            self._path.unlink()
        finally:
            os.close(handle)
