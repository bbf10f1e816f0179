"""Landlock: which folders a process and its descendants may read, and which they may write.

In: folders. Out: rules, created once, which any number of processes apply to themselves. Later rules can
only restrict further. The kernel's interface version decides which rights exist; a kernel without landlock
is reported, not an error.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from headrace.runtime import kernel

# The C library has no wrappers for these; the numbers are the same on all architectures.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15
# A kernel refuses rights that it does not know with EINVAL, so each version gets its own mask.
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_NEWEST_RIGHTS = (1 << 15) - 1
_IOCTL_DEV = 1 << 15
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

READ = EXECUTE | READ_FILE | READ_DIR


def version() -> int:
    """Return the version of the kernel's interface, 0 if it has none."""
    try:
        return kernel.syscall(CREATE_RULESET, 0, 0, _VERSION_FLAG)
    except OSError:
        return 0


def ruleset(*, readable: Iterable[str], writable: Iterable[str]) -> int:
    """Return the descriptor of rules that allow these folders and files, for `restrict`; close it.

    Raises:
        OSError: The kernel refuses.
    """
    level = version()
    rights = _RIGHTS_BY_VERSION.get(level, _NEWEST_RIGHTS)
    # Version 6 also blocks signals to, and abstract sockets of, processes outside the domain.
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if level >= 6 else 0
    # Older kernels accept the longer structure only if the rest is zero, and the oldest know 8
    # bytes of it.
    attribute = struct.pack("<QQQ", rights, 0, scopes)[: 24 if level >= 6 else 8]
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    rules = kernel.syscall(CREATE_RULESET, buffer, len(attribute), 0)
    try:
        for path in readable:
            _allow(rules, path, READ & rights)
        for path in writable:
            _allow(rules, path, rights)
    except OSError:
        os.close(rules)
        raise
    return rules


def restrict(rules: int) -> None:
    """Apply the rules to this process and its descendants, permanently, in a domain of their own.

    Needs `no_new_privs`.

    Raises:
        OSError: The kernel refuses.
    """
    kernel.syscall(RESTRICT_SELF, rules, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    # A list of usual system folders is used on every machine; a missing one needs no rule.
    except FileNotFoundError:
        return
    try:
        # The kernel refuses rights over folders where the path is a file.
        if not os.path.isdir(f"/proc/self/fd/{place}"):  # noqa: PTH112 - a descriptor's name
            rights &= _FILE_RIGHTS
        # The kernel's structure is packed: 12 bytes, where C would align it to 16.
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, place), 12)
        kernel.syscall(ADD_RULE, ruleset, _BENEATH, rule, 0)
    finally:
        os.close(place)
