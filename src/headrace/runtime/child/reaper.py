"""Reaper of a zygote: collects its dead children, and kills the processes they left.

In: the running children. Out: how the others ended. No process under a dead instance's uid survives it, and
orphans that belong to no running instance are killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import msgspec

from headrace.runtime import process_tree
from headrace.runtime.protocol.messages import Exited

MAX_SWEEPS = 64
"""How often the zygote looks for further processes to kill while it exits."""
SWEEP_PAUSE_S = 0.001


class Child(msgspec.Struct, frozen=True):
    """A running child; one without a name is a spare."""

    instance: str
    uid: int


class Children:
    """The running children of this process, by pid. Owned by the zygote.

    Args:
        uids: Each instance has a separate uid.
    """

    def __init__(self, *, uids: bool) -> None:
        self._uids = uids
        self._children: dict[int, Child] = {}
        self._pid = os.getpid()

    def add(self, pid: int, child: Child) -> None:
        """Add a child that was forked."""
        self._children[pid] = child

    def reap(self) -> Iterator[tuple[int, Exited]]:
        """Yield pid and exit of each dead child, after its uid was cleared; then kill other orphans."""
        while True:
            try:
                # SIGCHLD does not queue: one signal may stand for several children, so wait until
                # none is left.
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            child = self._children.pop(pid, None)
            if child is not None:
                self._sweep(child)
                cpu = usage.ru_utime + usage.ru_stime
                code = os.waitstatus_to_exitcode(status)
                yield pid, Exited(child.instance, code, cpu, usage.ru_maxrss * 1024)
        if strays := self._orphans():
            self._kill(strays)

    def end(self) -> None:
        """Kill every instance and its descendants, and reap them."""
        # Instances first: a running one could still fork.
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for _ in range(MAX_SWEEPS):
            while True:
                try:
                    # Block while our own children are dying; only strays, whose number is unknown,
                    # are polled.
                    pid, _ = os.waitpid(-1, os.WNOHANG if not self._children else 0)
                except ChildProcessError:
                    return
                if pid == 0:
                    break
                child = self._children.pop(pid, None)
                if child is not None:
                    self._sweep(child)
            process_tree.kill_trees(self._orphans())
            # A killed process is reaped by the kernel a moment later; its own children arrive only
            # then.
            time.sleep(SWEEP_PAUSE_S)

    def _kill(self, strays: list[int]) -> None:
        if not self._uids:
            process_tree.kill_trees(strays)
            return
        # Their children become ours when they die, or were killed with their uid.
        for pid in strays:
            os.kill(pid, signal.SIGKILL)

    def _orphans(self) -> list[int]:
        """Return adopted processes that belong to no running instance.

        Instances that share a uid are subreapers and adopt their own orphans, so the processes that
        reach the zygote belong to a dead instance.
        """
        living = {child.uid for child in self._children.values() if child.uid}
        return [
            pid
            for pid in process_tree.children(self._pid)
            if pid not in self._children and process_tree.owner(pid) not in living
        ]

    def _sweep(self, child: Child) -> None:
        # Listing /proc for a uid is expensive: most instances leave no process, which the cheap
        # check shows.
        if child.uid and self._orphans():
            process_tree.kill_all_of(child.uid)
