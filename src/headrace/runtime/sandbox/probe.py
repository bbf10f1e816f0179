"""Probe of the isolation that this machine supports: for `headrace doctor`.

A rehearsal in a separate process takes the same steps as every zygote and every instance, with the
same code, and reports the isolation it reached. Slow; nothing else calls it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile

import msgspec

from headrace.model.policy import Resources
from headrace.runtime.sandbox import isolation, landlock, limits, seccomp, warden

UID = 1 << 20


class ProbeResult(msgspec.Struct, frozen=True):
    """One mechanism: whether this machine gives it, and what that means."""

    name: str
    ok: bool
    detail: str


def probe(timeout: float = 20.0) -> list[ProbeResult]:
    """Try every kind of isolation in a separate process and report which work; slow, for `headrace doctor`."""
    program = "import sys; sys.path[:0] = sys.argv[2:]; "
    program += "from headrace.runtime.sandbox.probe import rehearse; rehearse(sys.argv[1])"
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as scratch:
            rehearsal = subprocess.run(
                # A separate process, as most steps cannot be undone; `-I` so that no file in the
                # current folder is imported.
                [sys.executable, "-I", "-c", program, scratch, *filter(None, sys.path)],
                capture_output=True,
                timeout=timeout,
                check=True,
            )
        findings = msgspec.json.decode(rehearsal.stdout, type=list[ProbeResult])
    except (subprocess.SubprocessError, OSError, msgspec.DecodeError) as error:
        findings = [ProbeResult("isolation", False, f"the rehearsal failed: {error}")]
    return [*findings, _cgroups(), _kernel()]


def rehearse(scratch: str) -> None:
    """Act as a zygote with one instance; write the findings to stdout and end this process."""
    root = os.geteuid() == 0
    uid = UID if root else 0
    ours, _ = socket.socketpair()
    zygote_isolation = warden.fork_zygote(
        uid,
        group=uid,
        isolation=2,
        close=ours.fileno(),
        prepare=lambda step: isolation.prepare_zygote(
            step, uid=uid, scratch=scratch, files=scratch, paths=sys.path
        ),
    )
    step = zygote_isolation.step
    notes = [*zygote_isolation.notes, *isolation.filter_zygote()]
    shared_isolation = isolation.seal_zygote(
        step, common=2, most=2, scratch=scratch, own=scratch, paths=sys.path
    )
    notes += shared_isolation.notes
    works = _run_instance(shared_isolation, uid if step.uids else 0, scratch)
    broken = {note.split(":", 1)[0]: note.split(":", 1)[-1].strip() for note in notes}
    tried = f" ({'; '.join(zygote_isolation.notes)})" if zygote_isolation.notes else ""
    found = [
        ProbeResult("offspring", step.namespaces, step.name + tried),
        ProbeResult("root", not root or step.uids, _about_root(root=root, step=step)),
        _either("namespaces", step.namespaces, "own PIDs, IPC, mounts and host name", "none"),
        _unless(broken, "mounts", "locked folders show only what an app needs")
        if step.uids
        else ProbeResult("mounts", False, "needs root"),
        _unless(broken, "landlock", f"version {landlock.version()}: files beyond the app are shut"),
        _unless(broken, "seccomp", f"{len(seccomp.NUMBERS)} system calls are refused"),
        _either("limits", works, "memory, files, processes", "an instance fails"),
        _either(
            "uid",
            step.uids and works,
            "one per instance",
            'the host\'s own: the HTTP server cannot distinguish functions from people; keep `access = "token"`, '
            "and `isolation=2` for what you do not trust: below it functions read the data folder, "
            "the operator's key included",
        ),
        ProbeResult(
            "isolation", works, f"level {shared_isolation.level if works else 0} of 2 is reached"
        ),
    ]
    sys.stdout.write(msgspec.json.encode(found).decode())
    sys.stdout.flush()
    # The zygote's process must not return into the caller's stack, nor run its exit hooks.
    os._exit(0)


def _either(name: str, ok: bool, gives: str, lacks: str) -> ProbeResult:
    return ProbeResult(name, ok, gives if ok else lacks)


def _unless(broken: dict[str, str], name: str, gives: str) -> ProbeResult:
    return ProbeResult(name, name not in broken, broken.get(name, gives))


def _about_root(*, root: bool, step: warden.IsolationStep) -> str:
    if not root:
        return "the host is not root, and its zygotes have no capabilities"
    if not step.uids:
        return "apps run as root without capabilities: uids cannot be changed here"
    if step.ids:
        return "given up before an app is imported; zygotes have user namespaces of their own"
    return "given up before an app is imported, save for what gives instances their uids"


def _run_instance(shared_isolation: isolation.SharedIsolation, uid: int, scratch: str) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            instance_isolation = isolation.plan_isolation(
                Resources(),
                own_uid=uid != 0,
                size=limits.address_space(),
                level=shared_isolation.level,
                shared_isolation=shared_isolation,
            )
            scratch, uid = f"{scratch}/one", uid and uid + 1
            isolation.prepare_scratch(scratch, uid)
            for act, arguments in isolation.steps(
                instance_isolation, uid=uid, groups=[], scratch=scratch, parent=os.getppid()
            ):
                act(*arguments)
            # A module that nothing else imports: this fails if the restrictions hide the standard
            # library.
            __import__("wave")
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _cgroups() -> ProbeResult:
    unified = "/sys/fs/cgroup/cgroup.controllers"
    for place, kind in ((unified, "v2"), ("/sys/fs/cgroup/unified/cgroup.controllers", "hybrid")):
        try:
            with open(place) as file:  # noqa: PTH123 - a kernel file
                controllers = file.read().split()
        except OSError:
            continue
        useful = sorted({"memory", "pids", "cpu"} & set(controllers))
        named = ", ".join(useful) or "no useful controllers"
        # cgroup v2 may be mounted without controllers (hybrid set-ups); a mount alone proves
        # nothing.
        return ProbeResult("cgroups", bool(useful), f"{kind}: {named}; not needed, limits are used")
    exists = os.path.isdir("/sys/fs/cgroup/memory")  # noqa: PTH112 - a kernel folder
    return ProbeResult(
        "cgroups", exists, "v1 only; limits are used" if exists else "none are mounted"
    )


def _kernel() -> ProbeResult:
    name = os.uname()
    release = tuple(int(part) for part in name.release.split("-")[0].split(".")[:2])
    return ProbeResult(
        # 5.9 brought `close_range`, without which `os.closerange` closes 2^31 descriptors one by
        # one in every child.
        "kernel",
        release >= (5, 9),
        f"{name.sysname} {name.release} on {name.machine}",
    )
