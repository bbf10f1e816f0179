"""A zygote's dead: collect them, and end what they left behind.

In come the children that live; out come how those ended that do not. Nothing that runs under a dead
instance's uid outlives it, and orphans that belong to no living instance are killed.
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
"""How often it is looked for more to end while the zygote itself ends."""
SWEEP_PAUSE_S = 0.001


class Child(msgspec.Struct, frozen=True):
    """A child that lives; one without a name is a spare."""

    instance: str
    uid: int


class Living:
    """The children of this process that live, by pid. Owned by the zygote.

    Args:
        uids: Each instance has a uid of its own.
    """

    def __init__(self, *, uids: bool) -> None:
        self._uids = uids
        self._children: dict[int, Child] = {}
        self._pid = os.getpid()

    def add(self, pid: int, child: Child) -> None:
        """It was forked."""
        self._children[pid] = child

    def reap(self) -> Iterator[tuple[int, Exited]]:
        """Collect the dead: pid and end of each of ours, its uid swept; then kill strays."""
        while True:
            try:
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
        if strays := self._strays():
            self._kill(strays)

    def end(self) -> None:
        """Kill every instance and its offspring, and reap them."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for _ in range(MAX_SWEEPS):
            while True:
                try:
                    pid, _ = os.waitpid(-1, os.WNOHANG if not self._children else 0)
                except ChildProcessError:
                    return
                if pid == 0:
                    break
                child = self._children.pop(pid, None)
                if child is not None:
                    self._sweep(child)
            process_tree.kill_families(self._strays())
            time.sleep(SWEEP_PAUSE_S)

    def _kill(self, strays: list[int]) -> None:
        if not self._uids:
            process_tree.kill_families(strays)
            return
        # Whatever of theirs is left comes to us in its turn, or went with its uid.
        for pid in strays:
            os.kill(pid, signal.SIGKILL)

    def _strays(self) -> list[int]:
        """Processes that came to us because their parent died, and belong to no living instance.

        Where instances share a uid, each adopts its own while it lives, and what comes to us is
        a dead one's.
        """
        living = {child.uid for child in self._children.values() if child.uid}
        return [
            pid
            for pid in process_tree.children(self._pid)
            if pid not in self._children and process_tree.owner(pid) not in living
        ]

    def _sweep(self, child: Child) -> None:
        if child.uid and self._strays():
            process_tree.kill_all_of(child.uid)
