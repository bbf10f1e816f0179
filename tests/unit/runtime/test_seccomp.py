"""The filter, run by a small interpreter of the kernel's machine."""

from __future__ import annotations

import struct

import pytest

from headrace.runtime.seccomp import (
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
