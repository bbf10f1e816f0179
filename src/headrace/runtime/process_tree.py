"""Process trees: find the descendants of a process, and kill all of them.

In: pids of this process's children, from a `/proc` of our PID namespace. An unreaped child keeps its pid. Processes
further down are held by a pidfd and then checked again, so that a pid that was reused meanwhile is never signalled.
"""

from __future__ import annotations

import os
import signal

from headrace.runtime import kernel

ALONE = 3
"""The link count of a process's thread folder if it has one thread."""
MAX_DESCENDANTS = 1_024
READ_BYTES = 1 << 16
MAX_PASSES = 64
"""How often a forking tree is read again until every process in it is stopped."""


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, of all its threads."""
    tasks = f"/proc/{pid}/task"
    try:
        # The link count of the thread folder is two plus the number of threads: one `stat` instead
        # of a listing in the usual case.
        threads = os.listdir(tasks) if os.stat(tasks).st_nlink != ALONE else [str(pid)]  # noqa: PTH116, PTH208 - hot
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            file = os.open(f"{tasks}/{thread}/children", os.O_RDONLY)
        except OSError:
            continue
        try:
            # Without a file object: read for every instance, every second.
            said = b"".join(iter(lambda: os.read(file, READ_BYTES), b""))  # noqa: B023 - used at once
            found += [int(child) for child in said.split()]
        except OSError:
            continue
        finally:
            os.close(file)
    return found


def descendants(pid: int) -> list[int]:
    """Return the pids of the descendants of a process, up to a bound: an estimate, since they come and go."""
    found = children(pid)
    for child in found:
        if len(found) >= MAX_DESCENDANTS:
            break
        found += children(child)
    return found


def uid_of(pid: int) -> int:
    """Return the real uid of a process, also of one that is not dumpable; -1 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - a kernel file
            lines = file.read().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), -1)


def owner(pid: int) -> int:
    """Return the uid of a process, -1 if it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - hot
    except OSError:
        return -1


def kill_all_of(uid: int) -> None:
    """Kill every process of a uid by one system call, which a fork bomb cannot outrun.

    Raises:
        ValueError: The uid is root's, whose processes are not ours.
    """
    if uid <= 0:
        raise ValueError(f"uid {uid} is not an instance's")
    # A helper, since `kill(-1)` spares only the process that calls it.
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(uid, uid, uid)
            # A uid change drops capabilities only if it starts from root. With CAP_KILL the next
            # line would kill every process of the machine.
            kernel.give_up_capabilities()
            if os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def kill_trees(roots: list[int]) -> None:
    """Kill these children and all their descendants; the caller reaps the roots.

    They are stopped first, generation by generation, until no running one is found: a stopped
    process cannot fork.
    """
    held: dict[int, int] = {}
    try:
        for _ in range(MAX_PASSES):
            if not _stop_more(roots, held):
                break
        for pidfd in held.values():
            _send(pidfd, signal.SIGKILL)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _stop_more(roots: list[int], held: dict[int, int]) -> bool:
    """Stop every process that is not held yet; return whether there was one."""
    fresh = False
    for root in roots:
        # An unreaped child keeps its pid.
        if root not in held and _hold(root, held):
            _send(held[root], signal.SIGSTOP)
            fresh = True
    waiting = list(held)
    while waiting:
        parent = waiting.pop()
        for child in children(parent):
            if child in held or not _hold(child, held):
                continue
            # The pid may have been reused between the listing and `pidfd_open`.
            if child in children(parent):
                _send(held[child], signal.SIGSTOP)
                waiting.append(child)
                fresh = True
            else:
                os.close(held.pop(child))
    return fresh


def _hold(pid: int, held: dict[int, int]) -> bool:
    try:
        held[pid] = os.pidfd_open(pid)
    except OSError:
        return False
    return True


def _send(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        # It is dead, or runs under another uid (a set-uid program), which ends by itself.
        return
