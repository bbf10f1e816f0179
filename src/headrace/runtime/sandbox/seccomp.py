"""The system call filter, as a BPF program for the kernel. Pure: names in, bytes out.

A deny list: calls that a function does not need (trace other processes, mount, load code into the
kernel, join namespaces) fail with EPERM; all others are allowed. A call in a foreign calling
convention kills the process, since the numbers mean other calls there. Known machines: x86_64 and
aarch64.
"""

from __future__ import annotations

import struct

EPERM, EACCES, ENOSYS = 1, 13, 38

ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

NUMBERS: dict[str, tuple[int, int]] = {
    # The numbers on x86_64 and on aarch64.
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    # io_uring performs system calls that this filter never sees.
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    # Handles reach files without walking their path, and so past mounts and modes.
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    # Turns address layout randomisation off.
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    # Lets a process stop the kernel in the middle of a copy: part of many kernel exploits.
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
CLONE = (56, 220)
CLONE3 = (435, 435)
SOCKET = (41, 198)

NEW_NAMESPACES = 0x7E02_0000
X32 = 0x4000_0000
AF_UNIX = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERROR, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_NUMBER_AT, _MACHINE_AT, _FIRST_AT = 0, 4, 16

_instruction = struct.Struct("<HBBI")


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return _instruction.pack(code, yes, no, value)


def deny_list(machine: str) -> bytes | None:
    """Return the program for every instance, or None for an unknown machine."""
    column = _column(machine)
    if column is None:
        return None
    program = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, ARCHITECTURES[machine], yes=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        # x32 calls come with the x86_64 architecture value and another set of numbers.
        program += [_step(_AT_LEAST, X32, no=1), _step(_RETURN, _KILL)]
    for numbers in NUMBERS.values():
        program += [_step(_EQUAL, numbers[column], no=1), _step(_RETURN, _ERROR | EPERM)]
    program += [
        # `clone3` has its flags in memory, which a filter cannot read. With ENOSYS the C library falls back
        # to `clone`, whose flags are in a register.
        _step(_EQUAL, CLONE3[column], no=1),
        _step(_RETURN, _ERROR | ENOSYS),
        _step(_EQUAL, CLONE[column], no=3),
        _step(_LOAD, _FIRST_AT),
        _step(_ANY_BIT, NEW_NAMESPACES, no=1),
        _step(_RETURN, _ERROR | EPERM),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def no_network(machine: str) -> bytes | None:
    """Return an additional program for functions without network: only local sockets are allowed."""
    column = _column(machine)
    if column is None:
        return None
    return b"".join(
        [
            _step(_LOAD, _NUMBER_AT),
            _step(_EQUAL, SOCKET[column], no=3),
            _step(_LOAD, _FIRST_AT),
            # Unix sockets stay, since `socketpair` and many libraries use them; landlock limits
            # those of others.
            _step(_EQUAL, AF_UNIX, yes=1),
            _step(_RETURN, _ERROR | EACCES),
            _step(_RETURN, _ALLOW),
        ]
    )


def _column(machine: str) -> int | None:
    names = list(ARCHITECTURES)
    return names.index(machine) if machine in names else None
