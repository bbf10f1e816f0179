"""Claims of runs that are sent ahead to a busy instance, which starts them after its current run.

Host and instance share a counter, an eventfd. The host adds one for each run sent ahead; the
instance subtracts one before it starts such a run; the host subtracts one to take the last of them
back. The kernel gives each count to one side, so a run is either started or taken back, even if one
side dies meanwhile.
"""

from __future__ import annotations

import contextlib
import os


class PrefetchClaims:
    """The host's end of one instance's counter; created when the first run is sent ahead."""

    def __init__(self) -> None:
        # EFD_SEMAPHORE: each read takes one, not the whole count.
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def add(self) -> None:
        """Allow one more run to start."""
        with contextlib.suppress(BlockingIOError):
            # Only the author's code can have filled the counter; then there is enough to claim.
            os.eventfd_write(self.descriptor, 1)

    def take_back(self) -> bool:
        """Take the last run back; return False if the instance has started it, or is about to."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)
