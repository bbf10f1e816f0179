"""Linux calls the standard library does not have, through ctypes.

Loaded once by a zygote before it forks, so that its children find every function bound already.
Each call raises `OSError` with the kernel's reason, and decides nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.mount.argtypes = [
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
]  # fmt: skip
_malloc_trim = getattr(_libc, "malloc_trim", None)

ARCHITECTURE = platform.machine()


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """One of the process's own settings."""
    result: int = _libc.prctl(option, first, second, 0, 0)
    if result < 0:
        raise _fail(f"prctl({option})")
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A call known by its number only."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        raise _fail(f"system call {number}")
    return result


def set_seccomp(program: bytes) -> None:
    """Install a filter; it cannot be taken away again, and is inherited."""
    count = len(program) // 8
    instructions = ctypes.create_string_buffer(program, len(program))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    holder = _Program(count, ctypes.cast(instructions, ctypes.c_void_p))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(holder))


def unshare(flags: int) -> None:
    """Leave the namespaces shared so far."""
    if _libc.unshare(flags) != 0:
        raise _fail("unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount, bind or change propagation."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        raise _fail(f"mount on `{target}`")


def trim_heap() -> None:
    """Give free memory back to the kernel where the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)
