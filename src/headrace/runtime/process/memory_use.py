"""Memory that processes use, memory of the machine, and kills by the kernel when it runs out.

Everything is read from `/proc` and the cgroup file system, of whichever version; what cannot be
read counts as nothing. It measures and compares, and ends no process.
"""

from __future__ import annotations

import os
from pathlib import Path

from headrace.runtime.process.postmortem import in_mib

PAGE = os.sysconf("SC_PAGE_SIZE")
SHARE = (3, 4)
"""The share of the machine's or the cgroup's memory that functions may use by default."""
UNLIMITED = 1 << 60
FRESH_S = 2.0
"""How long after a kill by the kernel the exit of the process may be reported."""


def own_memory_of(pid: int) -> int:
    """Return the bytes that the end of the process would free; 0 if it is gone. Slow."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines() if pid else []
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def share_of(pid: int) -> int:
    """Return the proportional set size of a process in bytes; 0 if it is gone. Slow."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def memory_of(pid: int) -> int:
    """Return the resident bytes of a process without mapped files; 0 if it is gone. Fast."""
    try:
        # `statm` is a counter of the kernel; `smaps_rollup` walks the page tables, which takes
        # milliseconds. No file object, since this is read for every instance every second.
        file = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        fields = os.read(file, 256).split()
    except OSError:
        return 0
    finally:
        os.close(file)
    return (int(fields[1]) - int(fields[2])) * PAGE if fields else 0


def limit_of(asked: int) -> int:
    """Return the bytes that functions may use in all: the setting, or else a share of the available memory."""
    if asked:
        return asked
    there = min(machine_memory(), Cgroup().limit)
    return there * SHARE[0] // SHARE[1]


def machine_memory() -> int:
    """Return the machine's memory in bytes."""
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return UNLIMITED


class Cgroup:
    """The memory controller of this process's cgroup, version 2 or 1; it may have none."""

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        self._events = ""
        self._limit = ""
        for line in _read(membership).splitlines():
            _, controllers, path = line.split(":", 2)
            # On a hybrid system the memory controller is mounted as version 1, although a version
            # 2 line exists too.
            if controllers == "memory":
                self._events = f"{root}/memory{path}/memory.oom_control"
                self._limit = f"{root}/memory{path}/memory.limit_in_bytes"
                return
            if not controllers:
                self._events = f"{root}{path}/memory.events"
                self._limit = f"{root}{path}/memory.max"

    @property
    def limit(self) -> int:
        """Return the bytes that its processes may use in all; a huge number if there is no limit."""
        text = _read(self._limit).strip()
        return min(int(text), UNLIMITED) if text.isdigit() else UNLIMITED

    @property
    def kills(self) -> int:
        """Count the kills by the kernel in it."""
        return _counted(_read(self._events), "oom_kill")


class KernelKills:
    """Detects whether the kernel killed a process for memory; each kill explains one exit."""

    def __init__(self, cgroup: Cgroup | None = None, vmstat: str = "/proc/vmstat") -> None:
        self._cgroup = cgroup or Cgroup()
        self._vmstat = vmstat
        self._seen = self._count()
        self._unexplained = 0
        self._noticed = 0.0
        self._words = ""

    def _count(self) -> tuple[int, int]:
        return self._cgroup.kills, _counted(_read(self._vmstat), "oom_kill")

    def look(self, now: float) -> None:
        """Count new kills; an exit that is reported much later is not one of them."""
        before, self._seen = self._seen, self._count()
        # The kernel does not report which process it killed: only these counters distinguish its SIGKILL
        # from another.
        ours, anywhere = self._seen[0] - before[0], self._seen[1] - before[1]
        if max(ours, anywhere) <= 0:
            return
        self._unexplained = max(ours, anywhere)
        self._noticed = now
        limit = self._cgroup.limit
        if ours <= 0:
            self._words = "the machine had no more"
        elif limit >= UNLIMITED:
            self._words = "its cgroup had no more"
        else:
            self._words = f"its cgroup may use {in_mib(limit)} in all"

    def explain(self, now: float) -> str:
        """Describe a kill by the kernel that explains a SIGKILL which Headrace did not send; "" if there is none."""
        self.look(now)
        if not self._unexplained or now - self._noticed > FRESH_S:
            return ""
        self._unexplained -= 1
        return self._words


def _counted(text: str, name: str) -> int:
    # Not line by line: read at every tick, and some of these files have hundreds of lines.
    _, _, rest = f"\n{text}".partition(f"\n{name} ")
    figure = rest.partition("\n")[0].strip()
    return int(figure) if figure.isdecimal() else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text() if path else ""
    except OSError:
        return ""
