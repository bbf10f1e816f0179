"""Isolation of instances: settings that the zygote applies for all, and those of each child.

Steps that are the same for all instances run in the zygote, so that a fork costs nothing more; they
run before the import of the app, unless they depend on what the app declares. Level 1: kernel
limits, a separate uid, no new privileges, a system call filter, a private scratch folder. Level 2
adds landlock and namespaces. A mechanism that the machine lacks is reported, never silently
skipped; the result names the level that was reached.
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
"""The preference of the kernel's out-of-memory killer for a process, at most 1,000."""
SIGKILL = int(signal.SIGKILL)
"""A plain number: converting an enumeration touches pages that a fresh child would have to copy."""

SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sys", "/usr", "/run/systemd/resolve")
DEVICES = ("/dev",)


def prepare_zygote(
    step: IsolationStep, *, uid: int, scratch: str, files: str, paths: Sequence[str]
) -> list[str]:
    """Prepare what needs all rights, before the author's code is imported; return the failures.

    Args:
        step: The isolation step that the zygote reached.
        uid: The uid it will have.
        scratch: The folder in which instances get theirs.
        files: The folder in which apps have theirs.
        paths: What instances must be able to read.
    """
    notes: list[str] = []
    if step.uids:
        # Needs root, and the paths that the import reads; so it comes before the uid change and
        # the import.
        _try(notes, "mounts", lambda: mounts.unlock([*_readable(paths), scratch, files]))
        # The zygote creates its instances' folders here after it has given up root.
        os.chown(scratch, uid, uid)
    # When memory runs out the kernel should kill instances first and the host last.
    _try(notes, "memory", _raise_oom_score)
    return notes


def _raise_oom_score() -> None:
    with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123 - a kernel file
        # Raising the score needs no privilege, lowering it does: a higher score that an operator
        # set stays.
        if int(file.read()) < OOM_SCORE:
            file.seek(0)
            file.write(str(OOM_SCORE))


def filter_zygote() -> list[str]:
    """Install the system call filter for this process and all processes it forks."""
    notes: list[str] = []
    # Filters are inherited over fork and cannot be removed, so one call covers all instances.
    program = seccomp.deny_list(kernel.ARCHITECTURE)
    if program is None:
        notes.append(f"seccomp: no filter for `{kernel.ARCHITECTURE}`")
    else:
        _try(notes, "seccomp", lambda: kernel.set_seccomp(program))
    return notes


def seal_zygote(
    step: IsolationStep, *, common: int, most: int, scratch: str, own: str, paths: Sequence[str]
) -> SharedIsolation:
    """Restrict access to files, once the app's functions have declared their levels.

    Args:
        step: The isolation step that the zygote reached.
        common: The level every function of the app asked for at least.
        most: The highest level one of them asked for.
        scratch: The folder in which instances get theirs.
        own: Where the app's own files are, or all apps' where modes keep others out.
        paths: What instances must still be able to read.
    """
    notes: list[str] = []
    # Falling back to level 1 is deliberate: the app still runs, and the note reaches `headrace
    # doctor` and the log.
    level = most
    rules = -1
    if level >= 2 and not step.namespaces:
        notes.append("level 2: there are no namespaces to be had")
        level = 1
    if level >= 2 and landlock.version() == 0:
        notes.append("landlock: the kernel has none")
        level = 1
    if level >= 2:
        try:
            # The rules open their folders by path, which is possible only while those paths are
            # still readable.
            rules = landlock.ruleset(
                readable=[*SYSTEM, *_readable(paths)], writable=[*DEVICES, scratch, own]
            )
        except OSError as error:
            notes.append(f"landlock: {error}")
            level = 1
    sealed = False
    if rules >= 0 and common >= 2:
        # Only if every function asks for level 2: a domain is inherited and cannot be widened for
        # a function of a lower level.
        sealed = _try(notes, "landlock", lambda: landlock.restrict(rules))
        level = level if sealed else 1
        # Instances with separate uids cannot read each other's files by mode; the others need a
        # domain each, so they keep the rules.
        if step.uids or not sealed:
            os.close(rules)
            rules = -1
    return SharedIsolation(step.uids, step.ids and not step.uids, level, sealed, rules, notes)


class SharedIsolation(msgspec.Struct, frozen=True):
    """Isolation that all instances of a zygote share.

    Attributes:
        uids: Each can have a separate uid.
        ids: They share one uid, in a user namespace of the app.
        level: The level of isolation they can reach.
        sealed: Files beyond the app are closed to the zygote already.
        rules: The descriptor of landlock rules for those that seal themselves, or -1.
        notes: What was requested and is not available, and why.
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
    """The restrictions of an instance, as far as they are known before the fork.

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
        own_uid: Whether the instance gets a separate uid.
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
    # The filter needs nothing that a level adds, so `network=False` holds at level 0 too.
    if not resources.network:
        program = seccomp.no_network(kernel.ARCHITECTURE)
    # Instances that share a uid get a landlock domain each, in addition to their zygote's: without it
    # they could signal and read each other.
    return InstanceIsolation(settings, shared_isolation.rules if level >= 2 else -1, program)


def prepare_scratch(scratch: str, uid: int) -> None:
    """Make an instance's folder and point `TMPDIR` to it: in the zygote ahead of time, or in the child.

    Raises:
        OSError: The folder cannot be made.
    """
    os.mkdir(scratch, SCRATCH_MODE)  # noqa: PTH102 - a string is what there is
    if uid:
        os.chown(scratch, uid, uid)
    # `TMPDIR` reaches the author's subprocesses too; setting `tempfile.tempdir` alone would not.
    os.environ["TMPDIR"] = scratch  # noqa: TID251 - written, not read: for the author's code
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # the import may have cached the zygote's folder


Step = tuple[Callable[..., object], tuple[object, ...]]
"""A function and its arguments."""


def steps(
    instance_isolation: InstanceIsolation, *, uid: int, groups: list[int], scratch: str, parent: int
) -> list[Step]:
    """Return the steps of a new child that complete its isolation, in order.

    They are prepared before the fork: a name that is looked up after the fork writes to reference
    counts, so that the kernel copies a page that the child would otherwise share.

    Args:
        instance_isolation: Its isolation settings.
        uid: Its separate uid, 0 for none.
        groups: The group by which it shares its app's files, if it does.
        scratch: Its folder.
        parent: The zygote's pid.
    """
    taken: list[Step] = [(setrlimit, setting) for setting in instance_isolation.settings]
    if uid:
        taken += [
            # Groups before the uid: without root or its capabilities a process may change neither
            # group.
            (os.setgroups, (groups,)),
            (os.setresgid, (uid, uid, uid)),
            (os.setresuid, (uid, uid, uid)),
            # After the ids, which need them; the zygote kept them to change the uid of its
            # children.
            (kernel.give_up_capabilities, ()),
            # A uid change clears the dumpable flag, and /proc/self then belongs to root. Setting it again is safe,
            # as no other process has this uid.
            (kernel.prctl, (kernel.PR_SET_DUMPABLE, 1)),
        ]
    else:
        if groups:
            taken.append((os.setgroups, (groups,)))
        # The zygote's capabilities change the uids of its children; an instance must not use them.
        taken.append((kernel.give_up_capabilities, ()))
        # A shared uid does not show which instance an orphan belongs to. With this flag orphans
        # become children of the instance, so that only those of a dead instance reach the zygote.
        taken.append((kernel.prctl, (kernel.PR_SET_CHILD_SUBREAPER, 1)))
    # After the uid change, so that a folder the instance may not enter is an error here and not
    # later.
    taken.append((os.chdir, (scratch,)))
    # Landlock and seccomp come last of the restrictions: they would refuse steps above.
    if instance_isolation.rules >= 0:
        taken.append((landlock.restrict, (instance_isolation.rules,)))
    if instance_isolation.filter is not None:
        taken.append((kernel.set_seccomp, (instance_isolation.filter,)))
    # The kernel clears the parent-death signal when a uid changes, so it is set after that.
    taken.append((kernel.prctl, (kernel.PR_SET_PDEATHSIG, SIGKILL)))
    taken.append((_end_if_orphaned, (parent,)))
    return taken


def _end_if_orphaned(parent: int) -> None:
    """End this process if its parent died before the parent-death signal was set."""
    # 0 is a parent outside our PID namespace; any other number is the process that adopted us.
    if getppid() not in (parent, 0):
        os.kill(os.getpid(), SIGKILL)
