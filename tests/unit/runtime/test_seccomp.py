"""The filter, run by a small interpreter of the kernel's machine."""

from __future__ import annotations

import struct

import pytest

from headrace.runtime.sandbox.seccomp import (
    AF_UNIX,
    ARCHITECTURES,
    CLONE,
    CLONE3,
    NUMBERS,
    SOCKET,
    X32,
    deny_list,
    no_network,
)

HEADERS = """
acct 163 89; add_key 248 217; bpf 321 280; clock_settime 227 112; clone 56 220;
clone3 435 435; delete_module 176 106; fanotify_init 300 262; finit_module 313 273;
fsconfig 431 431; fsmount 432 432; fsopen 430 430; fspick 433 433; init_module 175 105;
io_uring_enter 426 426; io_uring_register 427 427; io_uring_setup 425 425; kcmp 312 272;
kexec_file_load 320 294; kexec_load 246 104; keyctl 250 219; lookup_dcookie 212 18;
mount 165 40; mount_setattr 442 442; move_mount 429 429; name_to_handle_at 303 264;
open_by_handle_at 304 265; open_tree 428 428; perf_event_open 298 241; personality 135 92;
pidfd_getfd 438 438; pivot_root 155 41; process_madvise 440 440; process_vm_readv 310 270;
process_vm_writev 311 271; ptrace 101 117; quotactl 179 60; reboot 169 142;
request_key 249 218; sethostname 170 161; setns 308 268; settimeofday 164 170;
socket 41 198; swapoff 168 225; swapon 167 224; syslog 103 116; umount2 166 39;
unshare 272 97; userfaultfd 323 282; vhangup 153 58
"""
"""Name, x86_64 (`asm/unistd_64.h`) and aarch64 (`asm-generic/unistd.h`), as the kernel's headers have them."""

ALLOW, EPERM, EACCES, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x5000D, 0x50026, 0x80000000


def judge(program: bytes | None, number: int, *, machine: str, first: int = 0) -> int:
    assert program is not None
    call = struct.pack("<IIQQ", number, ARCHITECTURES[machine], 0, first)
    steps: list[tuple[int, int, int, int]] = list(struct.iter_unpack("<HBBI", program))
    at, held = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                held = struct.unpack_from("<I", call, value)[0]
            case 0x15:
                at += yes if held == value else no
            case 0x35:
                at += yes if held >= value else no
            case 0x45:
                at += yes if held & value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(f"step {code:#x}")


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_denied_fails_and_the_rest_passes(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    program = deny_list(machine)
    for numbers in NUMBERS.values():
        assert judge(program, numbers[column], machine=machine) == EPERM
    denied = {numbers[column] for numbers in NUMBERS.values()} | {CLONE3[column]}
    for number in set(range(430)) - denied:
        assert judge(program, number, machine=machine) == ALLOW
    # What means a namespace to `clone` means something else to others.
    passing = set(range(430)) - denied - {CLONE[column]}
    assert all(
        judge(program, number, machine=machine, first=0x7E020000) == ALLOW for number in passing
    )


def test_every_call_has_the_number_that_the_kernel_knows_it_by() -> None:
    known = {
        name: (int(x86_64), int(aarch64))
        for name, x86_64, aarch64 in (each.split() for each in HEADERS.split(";"))
    }
    ours = {**NUMBERS, "clone": CLONE, "clone3": CLONE3, "socket": SOCKET}
    assert ours == known


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_threads_may_be_made_but_not_namespaces(machine: str) -> None:
    clone = CLONE[list(ARCHITECTURES).index(machine)]
    assert judge(deny_list(machine), clone, machine=machine, first=0x003D0F00) == ALLOW
    assert judge(deny_list(machine), clone, machine=machine, first=0x10000000 | 17) == EPERM
    clone3 = CLONE3[list(ARCHITECTURES).index(machine)]
    assert judge(deny_list(machine), clone3, machine=machine) == ENOSYS


def test_another_calling_convention_is_killed() -> None:
    assert judge(deny_list("x86_64"), 1, machine="aarch64") == KILL
    assert judge(deny_list("x86_64"), X32 | 1, machine="x86_64") == KILL


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_without_network_only_local_sockets_are_left(machine: str) -> None:
    socket = SOCKET[list(ARCHITECTURES).index(machine)]
    assert judge(no_network(machine), socket, machine=machine, first=AF_UNIX) == ALLOW
    assert judge(no_network(machine), socket, machine=machine, first=2) == EACCES
    assert judge(no_network(machine), 1, machine=machine, first=2) == ALLOW


def test_an_unknown_machine_has_no_filter() -> None:
    assert deny_list("vax") is None
    assert no_network("vax") is None
