"""The warden: the parent process of a zygote, which ensures that no process remains.

    host ──> warden ──> zygote ──> instances ──> whatever they start

It runs none of the author's code. It sets up the zygote with the strongest isolation that the
machine allows, and then waits for it to exit. With namespaces the zygote is the first process of a
PID namespace: when it exits, the kernel kills every process in that namespace, including daemons
and stopped processes. Without them orphans become children of the warden, which kills them. The
zygote gives up root here, before it imports the author's code: in a user namespace that maps only
its ids, or by changing its uid and keeping only the capabilities with which it changes the uids of
instances.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

import msgspec

from headrace.runtime import kernel, process_tree

IDS_PER_ZYGOTE = 1 << 14
"""The zygote's own uid and one for each instance; a zygote is replaced before they are used up."""
EXIT_NOT_ISOLATED = 70
SIGNALLED = 128
"""Added to the number of the signal that killed the zygote, for the warden's exit code."""
MAX_NOTE = 4_096

_MAP, _MAPPED, _REFUSED, _READY = b"m", b"k", b"r", b"s"
_GIVES_IDS = kernel.CAP_CHOWN | kernel.CAP_KILL | kernel.CAP_SETGID | kernel.CAP_SETUID


class IsolationStep(msgspec.Struct, frozen=True):
    """Step of the isolation of a zygote.

    Attributes:
        namespaces: In new namespaces: PID, mounts, IPC, host name.
        ids: In a new user namespace.
        uids: Under a separate uid, and able to give each instance another.
        drops_rights: Without the rights of the host.
    """

    namespaces: bool
    ids: bool
    uids: bool
    drops_rights: bool

    @property
    def name(self) -> str:
        """A description for `headrace doctor`."""
        kills = "the kernel ends all with it" if self.namespaces else "its warden ends what is left"
        if not self.drops_rights:
            return f"{kills}; the host's rights"
        if self.uids:
            return f"{kills}; not root" + (", user namespace of its own" if self.ids else "")
        return f"{kills}; the host's uid without capabilities"


def isolation_steps(*, isolation: int, root: bool) -> list[IsolationStep]:
    """Return the steps to try, strongest first."""
    if isolation < 1:
        return [
            IsolationStep(True, not root, False, False),
            IsolationStep(False, False, False, False),
        ]
    if root:
        return [
            IsolationStep(True, True, True, True),
            IsolationStep(True, False, True, True),
            IsolationStep(False, False, True, True),
            IsolationStep(False, False, False, True),
        ]
    return [IsolationStep(True, True, False, True), IsolationStep(False, False, False, True)]


class ZygoteIsolation(msgspec.Struct, frozen=True):
    """Isolation step that the zygote reached, and notes about the higher steps that failed."""

    step: IsolationStep
    notes: list[str]


def fork_zygote(
    uid: int,
    *,
    group: int,
    isolation: int,
    close: int,
    prepare: Callable[[IsolationStep], list[str]],
) -> ZygoteIsolation:
    """Fork the zygote from the warden; returns in the zygote only.

    Args:
        uid: The first id of the zygote's range, which the zygote itself uses. Used by root only.
        group: The group that its instances share, for the app's files. Used by root only.
        isolation: The highest level of an instance; at 0 all rights are kept.
        close: The descriptor that only the zygote keeps.
        prepare: Runs in the zygote while it still has all rights; returns notes.
    """
    # Before the fork, so that no orphan of the zygote can be adopted by the host or by init.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    notes: list[str] = []
    root = os.geteuid() == 0
    # A step is tried by doing it, in a process that exits if it fails: what a machine allows (user
    # namespaces, containers, security modules) cannot be read anywhere.
    for step in isolation_steps(isolation=isolation, root=root):
        ours, theirs = socket.socketpair()
        flags = 0
        if step.namespaces:
            flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
            flags |= kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
            # Root creates its user namespace later, after the mounts that need the host's rights.
            flags |= 0 if root else kernel.CLONE_NEWUSER
        try:
            pid = kernel.fork_into(flags)
        except OSError as error:
            notes.append(f"namespaces: {error}")
            ours.close()
            theirs.close()
            continue
        if pid == 0:
            ours.close()
            return _set_up(step, uid, group, theirs, notes, prepare, root=root)
        theirs.close()
        reason = _serve_set_up(ours, pid, uid, group)
        ours.close()
        if reason is None:
            # The host waits for end of file on this socket; a copy in the warden would hide the
            # zygote's exit.
            os.close(close)
            _watch(pid, step)
        # Reaped before the next try, so that `_watch` never sees the exit of a failed one.
        os.waitpid(pid, 0)
        notes.append(reason)
    os._exit(EXIT_NOT_ISOLATED)


# -- the zygote's side ---------------------------------------------------------------------------


def _set_up(
    step: IsolationStep,
    uid: int,
    group: int,
    link: socket.socket,
    notes: list[str],
    prepare: Callable[[IsolationStep], list[str]],
    *,
    root: bool,
) -> ZygoteIsolation:
    try:
        # Covers the time until the ids change, which clears it; it is set again below.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if step.namespaces:
            if not root:
                _ask_for_ids(link)
            # systemd mounts / shared: the new /proc would otherwise replace the host's.
            kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
            # A /proc of the host would show pids that mean other processes in this namespace.
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", flags)
        # Mounts need the host's root; inside the user namespace they would be refused for locked
        # folders.
        notes += prepare(step)
        if step.ids and root:
            kernel.unshare(kernel.CLONE_NEWUSER)
            _ask_for_ids(link)
        if step.uids:
            _change_ids(uid, group)
        elif step.drops_rights:
            kernel.keep_capabilities(0)
        if step.drops_rights:
            # Without it a set-uid program would regain root, and the kernel would refuse filters
            # and landlock.
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        # A uid change clears the dumpable flag, and /proc/self then belongs to root. Setting it again is safe,
        # as no other process has this uid.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        # Without a PID namespace the zygote still has to kill its descendants when the warden
        # dies.
        last = signal.SIGKILL if step.namespaces else signal.SIGTERM
        kernel.prctl(kernel.PR_SET_PDEATHSIG, last)
        link.sendall(_READY)
        link.close()
    except BaseException as error:  # noqa: BLE001 - the warden's stack must not go on in its child
        # The warden then tries the next step; the note says why this one failed.
        link.sendall(_REFUSED + f"{step.name}: {error}".encode()[:MAX_NOTE])
        os._exit(EXIT_NOT_ISOLATED)
    return ZygoteIsolation(step, notes)


def _ask_for_ids(link: socket.socket) -> None:
    link.sendall(_MAP)
    if link.recv(1) != _MAPPED:
        raise OSError(errno.EPERM, "the user namespace got no ids")


def _change_ids(uid: int, group: int) -> None:
    # `setresuid` from root to another uid drops all capabilities otherwise.
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    # Fails where the namespace does not map the group: instances could not join it either, so the
    # next step is tried.
    os.setgroups([group])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.keep_capabilities(_GIVES_IDS)


# -- the warden's side ---------------------------------------------------------------------------


def _serve_set_up(link: socket.socket, pid: int, uid: int, group: int) -> str | None:
    """Write the id maps, which only a process outside the namespace can do; return the error, or None."""
    while True:
        said = link.recv(MAX_NOTE + 1)
        if said == _MAP:
            try:
                _map_ids(pid, uid, group)
            except OSError:
                link.sendall(_REFUSED)
            else:
                link.sendall(_MAPPED)
        elif said == _READY:
            return None
        else:
            return said[1:].decode("utf-8", "replace") or "namespaces: the zygote ended"


def _map_ids(pid: int, uid: int, group: int) -> None:
    """Map ids to the same numbers inside and outside, so that a uid means one thing everywhere."""
    if os.geteuid() == 0:
        users = f"{uid} {uid} {IDS_PER_ZYGOTE}"
        groups = f"{users}\n{group} {group} 1"
    else:
        users, groups = f"{os.geteuid()} {os.geteuid()} 1", f"{os.getegid()} {os.getegid()} 1"
        # The kernel requires this before an unprivileged process writes a group map
        # (CVE-2014-8989).
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", users)
    _write(f"/proc/{pid}/gid_map", groups)


def _write(path: str, text: str) -> None:
    # An id map must arrive in one `write`, which a buffered file does not promise.
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _watch(zygote: int, step: IsolationStep) -> NoReturn:
    """Wait for the zygote, kill the processes it left, and exit with its exit code."""
    # The handler may run after the zygote was reaped, when its pid may name another process.
    pidfd = os.pidfd_open(zygote)

    def end_it(_signal: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_it)
    if not step.namespaces:
        # The warden has to clean up after the host's death, which it could not after SIGKILL.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    while True:
        pid, status = os.wait()
        if pid == zygote:
            break
    # From here on a second SIGTERM must not end the sweep half-way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not step.namespaces:
        _kill_remaining()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _kill_remaining() -> None:
    """Kill all adopted processes, and those adopted meanwhile, until none is left."""
    while True:
        process_tree.kill_trees(process_tree.children(os.getpid()))
        try:
            # Reaping one may re-parent its children to us: look again after each.
            os.wait()
        except ChildProcessError:
            return
