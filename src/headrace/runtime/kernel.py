"""Linux system calls that the standard library lacks, through ctypes.

A zygote loads this before it forks, so that its children find every function bound. Each call
raises `OSError` with the kernel's reason. Another system than Linux is refused here, at import:
everything that starts processes for functions imports this file.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct

from headrace.model.errors import Refused

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18

CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID = 1 << 0, 1 << 5, 1 << 6, 1 << 7

_CAPABILITY_VERSION = 0x2008_0522
_CLONE = {"x86_64": 56, "aarch64": 220}

_libc = ctypes.CDLL(None, use_errno=True)
if not hasattr(_libc, "prctl"):
    raise Refused(
        f"a node needs Linux, whose `prctl` this system ({platform.system()}) does not have: run it on "
        "Linux, in a container or a virtual machine; `World`, `headrace validate` and `headrace new` "
        "work here"
    )
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
# Bound in advance: ctypes looks a function up through three tables, and writes to pages that
# children share.
_prctl, _capset = _libc.prctl, _libc.capset
_capability_head = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION, 0), 8)
_no_capabilities = ctypes.create_string_buffer(24)
_malloc_trim = getattr(_libc, "malloc_trim", None)

ARCHITECTURE = platform.machine()


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def keep_memory_private() -> None:
    """Hide this process's memory and environment from other processes, except root's; disable core dumps."""
    prctl(PR_SET_DUMPABLE, 0)
    try:
        os.listdir("/proc/self/fdinfo")  # noqa: PTH208 - names are enough
    except PermissionError:
        # Kernels before 5.14 then hide `fdinfo` from the process itself unless it is root, and
        # pids of pidfds are read there.
        prctl(PR_SET_DUMPABLE, 1)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    # 1, unlike 0, also stops dumps into a pipe (`core_pattern`); descendants inherit it.
    least = 1 if hard == resource.RLIM_INFINITY or hard >= 1 else hard
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def die_with(parent: int) -> None:
    """Set the parent-death signal, between fork and exec.

    It survives the exec, and also kills a process that is stopped before its first line. It fires
    when the parent's forking thread ends.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died between the fork and the line above: no signal would follow.
    if os.getppid() != parent:
        os._exit(0)


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """Call `prctl`, which changes settings of this process."""
    result: int = _prctl(option, first, second, 0, 0)
    if result < 0:
        raise _fail(f"prctl({option})")
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by its number."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        raise _fail(f"system call {number}")
    return result


def set_seccomp(program: bytes) -> None:
    """Install a system call filter; it cannot be removed, and is inherited."""
    count = len(program) // 8
    instructions = ctypes.create_string_buffer(program, len(program))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    holder = _Program(count, ctypes.cast(instructions, ctypes.c_void_p))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(holder))


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    if _libc.unshare(flags) != 0:
        raise _fail("unshare")


def fork_into(flags: int) -> int:
    """Fork a child into new namespaces; return 0 in the child. For a process with one thread only.

    The interpreter's fork hooks do not run: a process without other threads needs none.
    """
    if not flags:
        return os.fork()
    number = _CLONE.get(ARCHITECTURE)
    if number is None:
        raise OSError(f"clone: its number on `{ARCHITECTURE}` is not known")
    # Not `unshare` and then `fork`: that would move the calling process, the warden, into the
    # namespaces too.
    return syscall(number, flags | int(signal.SIGCHLD), 0, 0, 0, 0)


def keep_capabilities(kept: int) -> None:
    """Drop all capabilities but these, permanently."""
    both = struct.pack("<III", kept, kept, 0) + bytes(12)
    if _capset(_capability_head, ctypes.create_string_buffer(both, len(both))) != 0:
        raise _fail("capset")


def give_up_capabilities() -> None:
    """Drop all capabilities. For the start of instances: its buffers exist already."""
    if _capset(_capability_head, _no_capabilities) != 0:
        raise _fail("capset")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system, bind a folder or change propagation."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        raise _fail(f"mount on `{target}`")


def trim_heap() -> None:
    """Return free memory to the kernel, if the C library supports it."""
    # musl has no `malloc_trim`.
    if _malloc_trim is not None:
        _malloc_trim(0)
