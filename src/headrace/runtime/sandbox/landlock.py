"""Landlock: which folders a process and its offspring may read, and which they may write.

In come folders, out come rules, made once, under which any number of processes put themselves.
Rules can only be made tighter afterwards. The kernel's
version of the interface decides what can be asked for; too old a kernel is a reason, not an error.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from headrace.runtime import kernel

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_NEWEST_RIGHTS = (1 << 15) - 1
_IOCTL_DEV = 1 << 15
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

READ = EXECUTE | READ_FILE | READ_DIR


def version() -> int:
    """The interface's version, 0 where the kernel has none."""
    try:
        return kernel.syscall(CREATE_RULESET, 0, 0, _VERSION_FLAG)
    except OSError:
        return 0


def ruleset(*, readable: Iterable[str], writable: Iterable[str]) -> int:
    """The descriptor of rules that leave these folders and files, for `restrict`; close it.

    Raises:
        OSError: The kernel refuses.
    """
    level = version()
    rights = _RIGHTS_BY_VERSION.get(level, _NEWEST_RIGHTS)
    # No signals to, and no hidden sockets of, processes outside the domain.
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if level >= 6 else 0
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
    """Keep this process and its offspring to the rules, for good, in a domain of their own.

    Needs `no_new_privs`.

    Raises:
        OSError: The kernel refuses.
    """
    kernel.syscall(RESTRICT_SELF, rules, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # The kernel refuses rights over folders where the path is a file.
        if not os.path.isdir(f"/proc/self/fd/{place}"):  # noqa: PTH112 - a descriptor's name
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, place), 12)
        kernel.syscall(ADD_RULE, ruleset, _BENEATH, rule, 0)
    finally:
        os.close(place)
