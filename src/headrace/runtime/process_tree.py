"""Process trees: finding the descendants of a process, and ending all of them.

In come pids of this process's children, found in `/proc`, which must be that of our own PID
namespace; nothing comes out but the dead. A child that we have not reaped keeps its pid, and those
further down are held by a descriptor while they are looked at again, so that a number that was
given to another process meanwhile is never signalled.
"""

from __future__ import annotations

import os
import signal

from headrace.runtime import kernel

ALONE = 3
"""Links of the folder of a process's threads, where it has one."""
MAX_OFFSPRING = 1_024
READ_BYTES = 1 << 16
MAX_PASSES = 64
"""How often a family that multiplies is looked at again until every member stands still."""


def children(pid: int) -> list[int]:
    """The pids of a process's children, whichever of its threads they came of."""
    tasks = f"/proc/{pid}/task"
    try:
        # Of a folder whose entries are folders the link count is their number.
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
            # No file object: it is asked for every instance, every second.
            said = b"".join(iter(lambda: os.read(file, READ_BYTES), b""))  # noqa: B023 - used at once
            found += [int(child) for child in said.split()]
        except OSError:
            continue
        finally:
            os.close(file)
    return found


def offspring(pid: int) -> list[int]:
    """The pids of all that descends from a process, as far as a bound: a guess, since they come and go."""
    found = children(pid)
    for child in found:
        if len(found) >= MAX_OFFSPRING:
            break
        found += children(child)
    return found


def uid_of(pid: int) -> int:
    """The real uid of a process, also of one that hides its files; -1 where it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - a kernel file
            lines = file.read().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), -1)


def owner(pid: int) -> int:
    """The uid a process runs under, -1 where it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - hot
    except OSError:
        return -1


def kill_all_of(uid: int) -> None:
    """Kill every process of a uid in one stroke of the kernel's, which no fork bomb outruns.

    Raises:
        ValueError: The uid is root's, whose processes are not ours.
    """
    if uid <= 0:
        raise ValueError(f"uid {uid} is not an instance's")
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(uid, uid, uid)
            # Changing to a uid does not take away the right to signal others, unless from root;
            # with it, the next line would kill every process of the machine.
            kernel.give_up_capabilities()
            if os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def kill_families(roots: list[int]) -> None:
    """Kill these children of ours and all that descends from them; the roots are left to reap.

    They are stopped first, generation by generation, until none that still runs is found: what is
    stopped cannot fork.
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
        # A child of ours that we have not reaped keeps its number.
        if root not in held and _hold(root, held):
            _send(held[root], signal.SIGSTOP)
            fresh = True
    waiting = list(held)
    while waiting:
        parent = waiting.pop()
        for child in children(parent):
            if child in held or not _hold(child, held):
                continue
            # Between the list and the descriptor the number may have changed hands.
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
        # It is dead, or not ours to signal: a program that changed its uid ends by itself.
        return
