"""Room on the disk: a reserve to live on when it is full, and the choice who may still write.

While room is short, changes that only append (producers) are refused, and changes that finish
something (consumers) live on the reserve that was deleted for them, so that a full disk drains
instead of jamming. The reserve comes back by itself once there is room again.
"""

from __future__ import annotations

import os
from pathlib import Path

from headrace.world.clock import Clock

RESERVE_NAME = "headrace.reserve"
RESERVE_BYTES = 8 << 20
LOW_WATER_BYTES = 8 << 20
LOOK_EVERY_SECONDS = 0.25


class Room:
    """Whether the disk has room. Asked by the storage before every group."""

    def __init__(self, folder: Path, clock: Clock, *, reserve: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._path = folder / RESERVE_NAME
        self._clock = clock
        self._reserve = reserve
        self._looked = clock.monotonic() - LOOK_EVERY_SECONDS
        self.low = False
        if not self._path.exists() or self._path.stat().st_size < reserve:
            self._restore()
        self.look()

    def look(self) -> bool:
        """Whether room is short, as of at most a moment ago."""
        now = self._clock.monotonic()
        if now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            free = self._free()
            if not self.low and free < LOW_WATER_BYTES:
                self.shed()
            elif self.low and free > 2 * LOW_WATER_BYTES + self._reserve:
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

    def _free(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _restore(self) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._reserve)
        except OSError:
            self._path.unlink()
            self.low = True
        else:
            self.low = False
        finally:
            os.close(handle)
