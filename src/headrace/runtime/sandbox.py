"""The walls around an instance: what the zygote gives up for all, what each child gives up alone.

Whatever can be done once is done in the zygote after its imports, so that a fork costs nothing
more. Level 1: kernel limits, a uid of its own, no new privileges, a system call filter, a private
scratch folder. Level 2 adds landlock and namespaces. What a machine cannot give is reported, never
silently left out; the level that was really reached comes back.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from headrace.model.policy import Resources
from headrace.runtime import kernel, limits

SCRATCH_MODE = 0o700


def enter_zygote(isolation: int, *, scratch: str, paths: Sequence[str]) -> tuple[int, list[str]]:
    """Give up what no instance of this app may have; the level reached, and what is missing.

    Args:
        isolation: The level asked for.
        scratch: The folder in which instances get theirs.
        paths: What instances must still be able to read.
    """
    notes: list[str] = []
    if isolation < 1:
        return 0, notes
    if os.geteuid() != 0:
        notes.append("not root: instances share the host's uid")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return 1, notes


def enter_instance(
    resources: Resources, *, uid: int, size: int, level: int, scratch: str, parent: int
) -> None:
    """Give up the rest, in the freshly forked child."""
    os.mkdir(scratch, SCRATCH_MODE)  # noqa: PTH102 - on the cold path
    os.environ["TMPDIR"] = scratch  # noqa: TID251 - written, not read: for the author's code
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # it may have cached the zygote's
    if uid:
        os.chown(scratch, uid, uid)
    if level >= 1:
        limits.impose(limits.plan(resources, size=size, own_uid=uid != 0))
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # A changed uid hides /proc/self from its own process; nobody else has this uid.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    os.chdir(scratch)
    # After the uid change, which clears it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in {parent, 0}:
        os.kill(os.getpid(), signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - hot
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def owner(pid: int) -> int:
    """The uid a process runs under, -1 where it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - hot
    except OSError:
        return -1


def kill_all_of(uid: int) -> None:
    """Kill every process of a uid in one stroke of the kernel's, which no fork bomb outruns."""
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)
