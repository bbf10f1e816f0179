"""A forked process, held by a descriptor, so that a signal never reaches another process.

Its number is for people and for `/proc`; where it lives in a namespace of its own, the zygote's
number of it is another one. Nothing is decided here.
"""

from __future__ import annotations

import os
import select
import signal


class Process:
    """A process from its start until it is reaped; owned by its instance."""

    __slots__ = ("pid", "pidfd")

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1

    def hold(self, pidfd: int) -> None:
        """Take over the descriptor of the process, which has started."""
        self.pid = pid_of(pidfd)
        self.pidfd = pidfd

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is there."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    @property
    def is_dead(self) -> bool:
        """Return whether it has ended, even if it was not reported: its zygote may hang."""
        poll = select.poll()
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def let_go(self) -> None:
        """It was reaped; its number stays known."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def pid_of(pidfd: int) -> int:
    """The process's number as this process sees it; 0 where it is dead and reaped already."""
    # Once for every fork, on the loop: no file object, no lines.
    file = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY)
    try:
        said = os.read(file, 1024)
    finally:
        os.close(file)
    _, _, rest = said.partition(b"\nPid:")
    return max(int(rest[: rest.find(b"\n")]), 0) if rest else 0
