"""A forked process, held by a descriptor, so that a signal never reaches another process.

Its pid is for people and for `/proc`; in a PID namespace the zygote's number for it differs.
"""

from __future__ import annotations

import os
import select
import signal


class Process:
    """A process from its fork until it is reaped; owned by its instance."""

    __slots__ = ("pid", "pidfd")

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1

    def hold(self, pidfd: int) -> None:
        """Take over the descriptor of the process, which has started."""
        self.pid = pid_of(pidfd)
        self.pidfd = pidfd

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process exists."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    @property
    def is_dead(self) -> bool:
        """Return whether it has exited, even if that was not reported: its zygote may hang."""
        poll = select.poll()
        if self.pidfd >= 0:
            # A pidfd becomes readable when the process exits, before anybody reaps it.
            poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def let_go(self) -> None:
        """Close the descriptor, after the process was reaped; the pid stays known."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def pid_of(pidfd: int) -> int:
    """Return the process's pid as this process sees it; 0 if it is dead and reaped."""
    # Without a file object, since this runs for every fork on the event loop.
    file = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY)
    try:
        said = os.read(file, 1024)
    finally:
        os.close(file)
    _, _, rest = said.partition(b"\nPid:")
    # The kernel writes -1 once the process is reaped, and 0 if it is in no namespace that we see.
    return max(int(rest[: rest.find(b"\n")]), 0) if rest else 0
