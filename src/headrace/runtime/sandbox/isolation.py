"""Isolation of instances: settings that the zygote applies for all, and those of each child.

Whatever can be done once is done in the zygote, so that a fork costs nothing more; and before it
imports the app, wherever that need not have been read for it. Level 1: kernel limits, a uid of its
own, no new privileges, a system call filter, a private scratch folder. Level 2 adds landlock and
namespaces. What a machine cannot give is reported, never silently left out; the level that was
really reached comes back.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from os import getppid
from resource import setrlimit

import msgspec

from headrace.model.policy import Resources
from headrace.runtime import kernel
from headrace.runtime.sandbox import landlock, limits, mounts, seccomp
from headrace.runtime.sandbox.warden import IsolationStep

SCRATCH_MODE = OWN_MODE = 0o700
OOM_SCORE = 500
"""How much rather than others the kernel takes a process where memory runs out; 1,000 is most."""
SIGKILL = int(signal.SIGKILL)
"""Plain, as enumerations are slow to convert in a fresh process."""

SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sys", "/usr", "/run/systemd/resolve")
DEVICES = ("/dev",)


def prepare_zygote(
    rung: IsolationStep, *, uid: int, scratch: str, files: str, paths: Sequence[str]
) -> list[str]:
    """Prepare what needs all rights, before the author's code is imported; return the failures.

    Args:
        rung: The isolation step that the zygote reached.
        uid: The uid it will have.
        scratch: The folder in which instances get theirs.
        files: The folder in which apps have theirs.
        paths: What instances must be able to read.
    """
    notes: list[str] = []
    if rung.uids:
        _try(notes, "mounts", lambda: mounts.unlock([*_readable(paths), scratch, files]))
        os.chown(scratch, uid, uid)
    # Where memory runs out, the host is the last to be taken.
    _try(notes, "memory", _volunteer)
    return notes


def _volunteer() -> None:
    with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123 - a kernel file
        if int(file.read()) < OOM_SCORE:
            file.seek(0)
            file.write(str(OOM_SCORE))


def filter_zygote() -> list[str]:
    """Put the system call filter in force, for this process and all it forks."""
    notes: list[str] = []
    program = seccomp.deny_list(kernel.ARCHITECTURE)
    if program is None:
        notes.append(f"seccomp: no filter for `{kernel.ARCHITECTURE}`")
    else:
        _try(notes, "seccomp", lambda: kernel.set_seccomp(program))
    return notes


def seal_zygote(
    rung: IsolationStep, *, common: int, most: int, scratch: str, own: str, paths: Sequence[str]
) -> SharedIsolation:
    """Close off files, once the app has said which level its functions ask for.

    Args:
        rung: The isolation step that the zygote reached.
        common: The level every function of the app asked for at least.
        most: The highest level one of them asked for.
        scratch: The folder in which instances get theirs.
        own: Where the app's own files are, or all apps' where modes keep others out.
        paths: What instances must still be able to read.
    """
    notes: list[str] = []
    level = most
    rules = -1
    if level >= 2 and not rung.spaces:
        notes.append("level 2: there are no namespaces to be had")
        level = 1
    if level >= 2 and landlock.version() == 0:
        notes.append("landlock: the kernel has none")
        level = 1
    if level >= 2:
        try:
            rules = landlock.ruleset(
                readable=[*SYSTEM, *_readable(paths)], writable=[*DEVICES, scratch, own]
            )
        except OSError as error:
            notes.append(f"landlock: {error}")
            level = 1
    sealed = False
    if rules >= 0 and common >= 2:
        sealed = _try(notes, "landlock", lambda: landlock.restrict(rules))
        level = level if sealed else 1
        if rung.uids or not sealed:
            os.close(rules)
            rules = -1
    return SharedIsolation(rung.uids, rung.ids and not rung.uids, level, sealed, rules, notes)


class SharedIsolation(msgspec.Struct, frozen=True):
    """Isolation that all instances of a zygote share.

    Attributes:
        uids: Each can have a uid of its own.
        ids: They share one, in a user namespace of theirs.
        level: The level of isolation they can reach.
        sealed: Files beyond the app are closed to the zygote already.
        rules: The descriptor of landlock rules for those that seal themselves, or -1.
        notes: What was asked for and could not be had, and why.
    """

    uids: bool
    ids: bool
    level: int
    sealed: bool
    rules: int
    notes: list[str]


def _readable(paths: Sequence[str]) -> list[str]:
    return [path for path in (*paths, sys.prefix, sys.base_prefix, sys.exec_prefix) if path]


def _try(notes: list[str], what: str, act: Callable[[], object]) -> bool:
    try:
        act()
    except OSError as error:
        notes.append(f"{what}: {error}")
        return False
    return True


class InstanceIsolation(msgspec.Struct, frozen=True):
    """All that can be known before the fork of what an instance gives up.

    Attributes:
        settings: Its kernel limits.
        rules: The landlock rules it has to put itself under, or -1.
        filter: A further system call filter, or None.
    """

    settings: list[tuple[int, tuple[int, int]]]
    rules: int
    filter: bytes | None


def plan_isolation(
    resources: Resources, *, own_uid: bool, size: int, level: int, shared_isolation: SharedIsolation
) -> InstanceIsolation:
    """Plan the isolation of an instance of these resources in addition to that of its zygote.

    Args:
        resources: What the function asked for.
        own_uid: Whether the instance gets a uid of its own.
        size: The zygote's address space in bytes.
        level: The level of isolation it is to reach.
        shared_isolation: The isolation of its zygote.
    """
    settings: list[tuple[int, tuple[int, int]]] = []
    program = None
    if level >= 1:
        settings = limits.bounded(
            limits.plan(resources, size=size, own_uid=own_uid, own_ids=shared_isolation.ids)
        )
    # Nothing that a level adds is needed for it: who asks for no network gets none at level 0 too.
    if not resources.network:
        program = seccomp.no_network(kernel.ARCHITECTURE)
    # Instances that share a uid get a domain each, whatever the zygote stands in.
    return InstanceIsolation(settings, shared_isolation.rules if level >= 2 else -1, program)


def prepare_scratch(scratch: str, uid: int) -> None:
    """Make an instance's folder and let its code find it: in the zygote ahead, or in the child.

    Raises:
        OSError: The folder cannot be made.
    """
    os.mkdir(scratch, SCRATCH_MODE)  # noqa: PTH102 - a string is what there is
    if uid:
        os.chown(scratch, uid, uid)
    os.environ["TMPDIR"] = scratch  # noqa: TID251 - written, not read: for the author's code
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # it may have cached another's


Step = tuple[Callable[..., object], tuple[object, ...]]
"""Something to call and what with."""


def steps(
    instance_isolation: InstanceIsolation, *, uid: int, groups: list[int], scratch: str, parent: int
) -> list[Step]:
    """Return the steps of a new child that complete its isolation, in order.

    They are laid out before the fork, since every name that is looked up after it writes to pages
    that would be shared.

    Args:
        instance_isolation: Its isolation settings.
        uid: The uid of its own, 0 for none.
        groups: The group by which it shares its app's files, if it does.
        scratch: Its folder.
        parent: The zygote's pid.
    """
    taken: list[Step] = [(setrlimit, setting) for setting in instance_isolation.settings]
    if uid:
        taken += [
            (os.setgroups, (groups,)),
            (os.setresgid, (uid, uid, uid)),
            (os.setresuid, (uid, uid, uid)),
            (kernel.give_up_capabilities, ()),
            # A changed uid hides /proc/self from its own process; no other process has this uid.
            (kernel.prctl, (kernel.PR_SET_DUMPABLE, 1)),
        ]
    else:
        if groups:
            taken.append((os.setgroups, (groups,)))
        # What its zygote needs to give others their uids is not its own to use.
        taken.append((kernel.give_up_capabilities, ()))
        # The uid does not show which instance an orphan process belongs to: let it become a child of
        # the instance, so that only those of a dead instance come to the zygote.
        taken.append((kernel.prctl, (kernel.PR_SET_CHILD_SUBREAPER, 1)))
    taken.append((os.chdir, (scratch,)))
    if instance_isolation.rules >= 0:
        taken.append((landlock.restrict, (instance_isolation.rules,)))
    if instance_isolation.filter is not None:
        taken.append((kernel.set_seccomp, (instance_isolation.filter,)))
    # After the uid change, which clears it.
    taken.append((kernel.prctl, (kernel.PR_SET_PDEATHSIG, SIGKILL)))
    taken.append((_follow, (parent,)))
    return taken


def _follow(parent: int) -> None:
    """End here if the parent died before its death would have been ours."""
    if getppid() not in (parent, 0):
        os.kill(os.getpid(), SIGKILL)
