"""The warden: the process above a zygote, which ensures that no process stays behind.

    host ──> warden ──> zygote ──> instances ──> whatever they start

It runs none of the author's code. It sets the zygote up on the highest rung the machine allows and
then waits for its end. On the upper rungs the zygote is the first process of a PID namespace: when
it ends, however it ends, the kernel kills every process in there, daemons and stopped ones too.
On the lower ones whatever loses its parent comes to the warden, which kills it. The zygote gives
up root here as well, before it has imported anything of the author's: in a user namespace that
holds nothing but ids of its own, or else by changing its uid and keeping no more than it takes to
give instances theirs.
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
EXIT_UNSETTLED = 70
SIGNALLED = 128
"""Added to a signal's number where the zygote's end becomes the warden's exit code."""
MAX_NOTE = 4_096

_MAP, _MAPPED, _REFUSED, _STANDS = b"m", b"k", b"r", b"s"
_GIVES_IDS = kernel.CAP_CHOWN | kernel.CAP_KILL | kernel.CAP_SETGID | kernel.CAP_SETUID


class IsolationStep(msgspec.Struct, frozen=True):
    """Step of the isolation of a zygote.

    Attributes:
        spaces: In namespaces of its own: PID, mounts, IPC, host name.
        ids: In a user namespace of its own.
        uids: Under a uid of its own, and able to give each instance another.
        drops: Not with the rights the host has.
    """

    spaces: bool
    ids: bool
    uids: bool
    drops: bool

    @property
    def name(self) -> str:
        """In words, for `headrace doctor`."""
        kills = "the kernel ends all with it" if self.spaces else "its warden ends what is left"
        if not self.drops:
            return f"{kills}; the host's rights"
        if self.uids:
            return f"{kills}; not root" + (", user namespace of its own" if self.ids else "")
        return f"{kills}; the host's uid without capabilities"


def rungs(*, isolation: int, root: bool) -> list[IsolationStep]:
    """The ladder, from the top."""
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

    rung: IsolationStep
    notes: list[str]


def divide(
    uid: int,
    *,
    group: int,
    isolation: int,
    close: int,
    prepare: Callable[[IsolationStep], list[str]],
) -> ZygoteIsolation:
    """Become warden and zygote; returns in the zygote only.

    Args:
        uid: The first of the ids that are the zygote's; its own. Of use to root only.
        group: The group that its instances share, for the app's own files. Of use to root only.
        isolation: The highest level an instance may ask for; at 0 all rights are kept.
        close: The descriptor that is the zygote's alone.
        prepare: What the zygote does while it has all rights still; gives notes.
    """
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    notes: list[str] = []
    root = os.geteuid() == 0
    for rung in rungs(isolation=isolation, root=root):
        ours, theirs = socket.socketpair()
        flags = 0
        if rung.spaces:
            flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
            flags |= kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
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
            return _settle(rung, uid, group, theirs, notes, prepare, root=root)
        theirs.close()
        reason = _assist(ours, pid, uid, group)
        ours.close()
        if reason is None:
            os.close(close)
            _watch(pid, rung)
        os.waitpid(pid, 0)
        notes.append(reason)
    os._exit(EXIT_UNSETTLED)


# -- the zygote's side ---------------------------------------------------------------------------


def _settle(
    rung: IsolationStep,
    uid: int,
    group: int,
    link: socket.socket,
    notes: list[str],
    prepare: Callable[[IsolationStep], list[str]],
    *,
    root: bool,
) -> ZygoteIsolation:
    try:
        # Set once more below: changing ids clears it.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if rung.spaces:
            if not root:
                _ask_for_ids(link)
            kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
            # Else every pid would mean another process there than it does to us.
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", flags)
        notes += prepare(rung)
        if rung.ids and root:
            kernel.unshare(kernel.CLONE_NEWUSER)
            _ask_for_ids(link)
        if rung.uids:
            _change_ids(uid, group)
        elif rung.drops:
            kernel.keep_capabilities(0)
        if rung.drops:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        # A changed uid hides /proc/self from its own process; no other process has this uid.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        # On the lower rungs we still have offspring to end when the warden is killed.
        last = signal.SIGKILL if rung.spaces else signal.SIGTERM
        kernel.prctl(kernel.PR_SET_PDEATHSIG, last)
        link.sendall(_STANDS)
        link.close()
    except BaseException as error:  # noqa: BLE001 - the warden's stack must not go on in its child
        link.sendall(_REFUSED + f"{rung.name}: {error}".encode()[:MAX_NOTE])
        os._exit(EXIT_UNSETTLED)
    return ZygoteIsolation(rung, notes)


def _ask_for_ids(link: socket.socket) -> None:
    link.sendall(_MAP)
    if link.recv(1) != _MAPPED:
        raise OSError(errno.EPERM, "the user namespace got no ids")


def _change_ids(uid: int, group: int) -> None:
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    # Where there is no such group here, there are none for the instances either: another rung then.
    os.setgroups([group])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.keep_capabilities(_GIVES_IDS)


# -- the warden's side ---------------------------------------------------------------------------


def _assist(link: socket.socket, pid: int, uid: int, group: int) -> str | None:
    """Do for the zygote what only a process outside can; return the error, or None."""
    while True:
        said = link.recv(MAX_NOTE + 1)
        if said == _MAP:
            try:
                _map_ids(pid, uid, group)
            except OSError:
                link.sendall(_REFUSED)
            else:
                link.sendall(_MAPPED)
        elif said == _STANDS:
            return None
        else:
            return said[1:].decode("utf-8", "replace") or "namespaces: the zygote ended"


def _map_ids(pid: int, uid: int, group: int) -> None:
    """Same numbers inside and outside, so that a uid means one thing everywhere."""
    if os.geteuid() == 0:
        users = f"{uid} {uid} {IDS_PER_ZYGOTE}"
        groups = f"{users}\n{group} {group} 1"
    else:
        users, groups = f"{os.geteuid()} {os.geteuid()} 1", f"{os.getegid()} {os.getegid()} 1"
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", users)
    _write(f"/proc/{pid}/gid_map", groups)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _watch(zygote: int, rung: IsolationStep) -> NoReturn:
    """Wait for the zygote's end, end what it left behind, and pass on how it ended."""
    pidfd = os.pidfd_open(zygote)

    def end_it(_signal: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_it)
    if not rung.spaces:
        # After SIGKILL we could end no process; so the death of the host sends SIGTERM.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    while True:
        pid, status = os.wait()
        if pid == zygote:
            break
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not rung.spaces:
        _sweep()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _sweep() -> None:
    """End all that came to us, and what then comes to us, until there is nothing."""
    while True:
        process_tree.kill_families(process_tree.children(os.getpid()))
        try:
            os.wait()
        except ChildProcessError:
            return
