"""What the kernel says of processes: who descends from whom, since when, with how many descriptors.

Read from /proc alone. A process is named by its id and its start, so that a later one of the same
id is never mistaken for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """A process that was there once."""

    pid: int
    since: str

    def is_alive(self) -> bool:
        """Whether it still runs; what is only waiting to be reaped does not."""
        fields = _stat(self.pid)
        return bool(fields) and fields[19] == self.since and fields[0] not in "ZX"

    def state(self) -> str:
        """R, S, T (stopped) ... as the kernel writes it; "" where it is gone."""
        fields = _stat(self.pid)
        return fields[0] if fields and fields[19] == self.since else ""

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False where it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(handle)


def process(pid: int) -> Process | None:
    """The process that has this id now."""
    fields = _stat(pid)
    return Process(pid, fields[19]) if fields else None


def below(ancestor: int) -> list[Process]:
    """Every process that descends from `ancestor`, the dead that nobody has reaped included."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1]), fields[19]
    found: dict[int, Process] = {}
    wanted = {ancestor}
    while wanted:
        wanted = {
            pid for pid, (parent, _) in parents.items() if parent in wanted and pid not in found
        }
        found |= {pid: Process(pid, parents[pid][1]) for pid in wanted}
    return list(found.values())


def children(parent: int) -> list[Process]:
    """The processes a process started itself."""
    return [
        each
        for each in below(parent)
        if (fields := _stat(each.pid)) and int(fields[1]) == parent and each.is_alive()
    ]


def zygotes(host: int) -> list[Process]:
    """The processes from which a node forks its instances; above each stands its warden."""
    return [each for warden in children(host) for each in children(warden.pid)]


def zombies(ancestor: int) -> list[Process]:
    """Those below `ancestor` that have ended and were not reaped."""
    return [each for each in below(ancestor) if each.state() == "Z"]


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def adopt_orphans(yes: bool) -> None:
    """Let processes below this one fall to it, and not to init, when their parents die."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel has no child subreapers")


def reap(family: Iterable[Process]) -> None:
    """Collect those that have ended and are children of this process."""
    for each in family:
        try:
            os.waitpid(each.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def wait_until(
    holds: Callable[[], object],
    *,
    seconds: float,
    what: str | Callable[[], str],
    every: float = 0.01,
) -> float:
    """Look until it holds; the seconds that took.

    Raises:
        AssertionError: It did not within `seconds`; `what` says what was waited for.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {said}")
        time.sleep(every)
    return time.monotonic() - began


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
