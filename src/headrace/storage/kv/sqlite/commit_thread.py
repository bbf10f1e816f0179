"""The thread on which a commit waits for the disk: the loop's while the disk is quick, else another.

A second thread needs the interpreter's lock twice per commit. On a busy loop that costs far more
than the fsync: measured with 16 changes in flight and a loop that never rests, 24,000 changes/s
committing in place, 8,800 on another thread with a switch interval of 0.1 ms, and 20 (starved) with 0.5 ms
or more, wherever the statements ran. So a commit runs in place as long as commits lately took less
than `QUICK_SECONDS`, and on a thread while the disk is slow; now and then one in place looks
whether it has become quick again. See ADR 0003.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable

QUICK_SECONDS = 0.002
LARGE_BYTES = 2 << 20
LOOK_AGAIN_AFTER = 256
SMOOTHING = 0.1
SWITCH_INTERVAL = 0.0001


class CommitPace:
    """Decides whether the next commit runs in place, by the duration of the last ones.

    Attributes:
        expected: Seconds that a commit in place takes.
    """

    def __init__(self) -> None:
        self.expected = 0.0
        self._off_loop = 0

    def in_place(self, size: int) -> bool:
        """Return True where a commit of about `size` bytes may block the loop."""
        # Megabytes take longer than the average says, however quick the disk is for small commits.
        if size > LARGE_BYTES:
            return False
        if self.expected < QUICK_SECONDS:
            return True
        self._off_loop += 1
        # Only a commit in place is timed (a thread's time includes the wait for the interpreter's
        # lock), so one has to be tried now and then.
        if self._off_loop >= LOOK_AGAIN_AFTER:
            self._off_loop = 0
            return True
        return False

    def took(self, seconds: float) -> None:
        """A commit in place took so long; one slow commit alone changes nothing."""
        # The disk is quick again: an average over the slow time would keep commits on the thread
        # for long.
        if self.expected >= QUICK_SECONDS > seconds:
            self.expected = seconds
        # Capped, so that one stall of a second does not count as five hundred slow commits.
        self.expected += SMOOTHING * (min(seconds, 2 * QUICK_SECONDS) - self.expected)


class CommitThread:
    """One thread for the calls that wait for the disk. Started when first needed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, name: str) -> None:
        self._name = name
        self._loop = loop
        self._work: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], Callable[[], None]]) -> None:
        """Run `work` on the thread, then what it returns on the loop."""
        if self._thread is None:
            # Process-wide, and only ever lowered: at CPython's 5 ms the thread starved (20
            # commits/s measured).
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
            # A daemon thread: a disk that never answers must not keep the process from ending.
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._work.put(work)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            afterwards = work()
            # Results are applied on the loop: cache, log and futures are used by that thread
            # alone.
            self._loop.call_soon_threadsafe(afterwards)

    def close(self) -> None:
        """Finish what was handed over; what is to run on the loop afterwards may come later."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
