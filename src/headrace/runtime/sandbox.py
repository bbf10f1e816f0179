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
from collections.abc import Callable, Sequence

import msgspec

from headrace.model.policy import Resources
from headrace.runtime import kernel, landlock, limits, mounts, seccomp

SCRATCH_MODE = 0o700
SIGKILL = int(signal.SIGKILL)
"""Plain, as enumerations are slow to convert in a fresh process."""

SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sys", "/usr", "/run/systemd/resolve")
DEVICES = ("/dev",)


def enter_zygote(
    common: int, *, most: int, scratch: str, paths: Sequence[str]
) -> tuple[int, list[str]]:
    """Give up what no instance of this app may have; the level instances can reach, and why not 2.

    Args:
        common: The level every function of the app asked for at least.
        most: The highest level one of them asked for.
        scratch: The folder in which instances get theirs.
        paths: What instances must still be able to read.
    """
    notes: list[str] = []
    level = most
    if level >= 1 and os.geteuid() != 0:
        notes.append("not root: instances share the host's uid, and have no namespaces")
        level = 1
    elif level >= 1:
        _try(notes, "mounts", lambda: mounts.unlock([*_readable(paths), scratch]))
        if common >= 2 and not _try(notes, "namespaces", _separate):
            level = 1
    if level >= 2 and landlock.version() == 0:
        notes.append("landlock: the kernel has none")
        level = 1
    if common >= 1:
        notes += _drop_rights()
    if common >= 2 and level >= 2 and not _try(notes, "landlock", lambda: _seal(scratch, paths)):
        level = 1
    return level, notes


def _drop_rights() -> list[str]:
    notes: list[str] = []
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    program = seccomp.deny_list(kernel.ARCHITECTURE)
    if program is None:
        notes.append(f"seccomp: no filter for `{kernel.ARCHITECTURE}`")
    else:
        _try(notes, "seccomp", lambda: kernel.set_seccomp(program))
    return notes


def _readable(paths: Sequence[str]) -> list[str]:
    return [path for path in (*paths, sys.prefix, sys.base_prefix, sys.exec_prefix) if path]


def _seal(scratch: str, paths: Sequence[str]) -> None:
    landlock.seal(readable=[*SYSTEM, *_readable(paths)], writable=[*DEVICES, scratch])


def _try(notes: list[str], what: str, act: Callable[[], object]) -> bool:
    try:
        act()
    except OSError as error:
        notes.append(f"{what}: {error}")
        return False
    return True


def _separate() -> None:
    kernel.unshare(kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)


class Walls(msgspec.Struct, frozen=True):
    """All that can be known before the fork of what an instance gives up.

    Attributes:
        settings: Its kernel limits.
        drops_rights: The zygote kept rights that this instance must not have.
        sealed: Files beyond the app must be closed to it; the zygote's own are still open.
        filter: A further system call filter, or None.
    """

    settings: list[tuple[int, tuple[int, int]]]
    drops_rights: bool
    sealed: bool
    filter: bytes | None


def plan_walls(resources: Resources, *, own_uid: bool, size: int, level: int, common: int) -> Walls:
    """What an instance of these resources gives up beyond what its zygote gave up already.

    Args:
        resources: What the function asked for.
        own_uid: Whether the instance gets a uid of its own.
        size: The zygote's address space in bytes.
        level: The level of isolation it is to reach.
        common: The level the zygote stands at.
    """
    settings: list[tuple[int, tuple[int, int]]] = []
    program = None
    if level >= 1:
        settings = limits.bounded(limits.plan(resources, size=size, own_uid=own_uid))
        if not resources.network:
            program = seccomp.no_network(kernel.ARCHITECTURE)
    return Walls(settings, common < 1 <= level, common < 2 <= level, program)


def enter_instance(walls: Walls, *, uid: int, scratch: str, parent: int) -> None:
    """Give up the rest, in the freshly forked child. Every line here is on the cold path."""
    os.mkdir(scratch, SCRATCH_MODE)  # noqa: PTH102 - hot
    os.environ["TMPDIR"] = scratch  # noqa: TID251 - written, not read: for the author's code
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # it may have cached the zygote's
    if uid:
        os.chown(scratch, uid, uid)
    limits.impose(walls.settings)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # A changed uid hides /proc/self from its own process; nobody else has this uid.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    os.chdir(scratch)
    if walls.drops_rights:
        _drop_rights()
    if walls.sealed:
        _seal(scratch, sys.path)
    if walls.filter is not None:
        kernel.set_seccomp(walls.filter)
    # After the uid change, which clears it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() not in {parent, 0}:
        os.kill(os.getpid(), SIGKILL)


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


class Finding(msgspec.Struct, frozen=True):
    """One mechanism: whether this machine gives it, and what that means."""

    name: str
    ok: bool
    detail: str


def probe(timeout: float = 20.0) -> list[Finding]:
    """Try every wall in a process of its own and say which stand; slow, for `headrace doctor`."""
    # Zygotes import this module too, and should not carry these.
    import subprocess
    import tempfile

    program = "import sys; sys.path[:0] = sys.argv[2:]; "
    program += "from headrace.runtime.sandbox import rehearse; rehearse(sys.argv[1])"
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as scratch:
            rehearsal = subprocess.run(
                [sys.executable, "-I", "-c", program, scratch, *filter(None, sys.path)],
                capture_output=True,
                timeout=timeout,
                check=True,
            )
        findings = msgspec.json.decode(rehearsal.stdout, type=list[Finding])
    except (subprocess.SubprocessError, OSError, msgspec.DecodeError) as error:
        findings = [Finding("isolation", False, f"the rehearsal failed: {error}")]
    return [*findings, _cgroups(), _kernel()]


def rehearse(scratch: str) -> None:
    """Stand up the walls in this process, which is spent afterwards; findings go to stdout."""
    root = os.geteuid() == 0
    covered: list[Finding] = []
    level, notes = enter_zygote(2, most=2, scratch=scratch, paths=sys.path)
    broken = {note.split(":", 1)[0]: note.split(":", 1)[-1].strip() for note in notes}
    for name, gives in (
        ("mounts", "only what an app needs of locked folders is visible"),
        ("namespaces", "own IPC and host name"),
        ("landlock", f"version {landlock.version()}: files beyond the app are out of reach"),
        ("seccomp", f"{len(seccomp.NUMBERS)} system calls are refused"),
    ):
        unprivileged = not root and name in {"mounts", "namespaces"}
        reason = "needs root" if unprivileged else broken.get(name, "")
        covered.append(Finding(name, not reason, reason or gives))
    uid = 1 << 20 if root else 0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            walls = plan_walls(
                Resources(), own_uid=uid != 0, size=limits.address_space(), level=level,
                common=level,
            )  # fmt: skip
            enter_instance(walls, uid=uid, scratch=f"{scratch}/one", parent=os.getppid())
            __import__("wave")
            code = 0
        finally:
            os._exit(code)
    stands = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    covered.append(
        Finding("limits", stands, "memory, files, processes" if stands else "an instance fails")
    )
    covered.append(
        Finding("uid", root and stands, "one per instance" if root else "not root: the host's own")
    )
    reached = level if stands else 0
    covered.append(Finding("isolation", stands, f"level {reached} of 2 is reached"))
    sys.stdout.write(msgspec.json.encode(covered).decode())


def _cgroups() -> Finding:
    unified = "/sys/fs/cgroup/cgroup.controllers"
    for place, kind in ((unified, "v2"), ("/sys/fs/cgroup/unified/cgroup.controllers", "hybrid")):
        try:
            with open(place) as file:  # noqa: PTH123 - a kernel file
                controllers = file.read().split()
        except OSError:
            continue
        useful = sorted({"memory", "pids", "cpu"} & set(controllers))
        named = ", ".join(useful) or "no useful controllers"
        return Finding("cgroups", bool(useful), f"{kind}: {named}; not needed, limits are used")
    exists = os.path.isdir("/sys/fs/cgroup/memory")  # noqa: PTH112 - a kernel folder
    return Finding("cgroups", exists, "v1 only; limits are used" if exists else "none are mounted")


def _kernel() -> Finding:
    name = os.uname()
    release = tuple(int(part) for part in name.release.split("-")[0].split(".")[:2])
    return Finding("kernel", release >= (5, 9), f"{name.sysname} {name.release} on {name.machine}")
