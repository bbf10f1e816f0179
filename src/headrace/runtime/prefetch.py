"""Runs that are sent ahead: to an instance that is busy, to be begun when it has ended what it does.

In: that a run was sent ahead, and that it is wanted back. Out: whose it is. Host and instance share
a count, an eventfd: the host adds one for each such run, the instance takes one off before it
begins one, and the host takes one off to have the last of them back. The kernel lets nobody take
the same one twice, so a run is begun or taken back, never both, whoever dies meanwhile.
"""

from __future__ import annotations

import contextlib
import os


class PrefetchClaims:
    """The host's end of one instance's count; made when the first run is sent ahead."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def lend(self) -> None:
        """One more run may be begun."""
        with contextlib.suppress(BlockingIOError):
            # It is full only where the author's code wrote to it: there is enough to claim then.
            os.eventfd_write(self.descriptor, 1)

    def take_back(self) -> bool:
        """Have the last one back; False where the instance has begun it, or is about to."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
