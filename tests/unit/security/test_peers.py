"""The owner of the other end of a connection, as the kernel answers; and the operator's key."""

from __future__ import annotations

import socket
import stat
import struct
from pathlib import Path

import pytest

from headrace.client.address import read_key
from headrace.environment.randomness import SeededEntropy
from headrace.security.operator_key import MAX_SESSIONS, Operator, fresh_key, write_key
from headrace.security.tcp_peers import question, uid_in
from headrace.security.tokens import is_ours

SERVER = ("127.0.0.1", 4280)


def answer(kind: int, far: int, near: int, uid: int, inode: int) -> bytes:
    """A kernel's answer about one socket."""
    body = b"\2\1\0\0" + struct.pack(">HH", far, near) + bytes(44 + 12)
    body += struct.pack("=II", uid, inode)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


@pytest.mark.parametrize(
    ("said", "uid"),
    [
        (answer(20, 40_000, 4280, 1000, 901), 1000),
        (answer(20, 40_000, 4280, 0, 901), 0),
        # Closed: the kernel says root, without an open file.
        (answer(20, 40_000, 4280, 0, 0), None),
        # One that listens at the far port, and one of another connection.
        (answer(20, 40_000, 0, 1000, 901), None),
        (answer(20, 40_001, 4280, 1000, 901), None),
        # An error: no such socket.
        (answer(2, 40_000, 4280, 1000, 901), None),
        (answer(20, 40_000, 4280, 1000, 901)[:40], None),
        (b"", None),
    ],
)
def test_the_owner_of_the_very_socket_is_read_and_of_a_closed_one_nobody(
    said: bytes, uid: int | None
) -> None:
    assert uid_in(said, 40_000, 4280) == uid


def test_a_mapped_address_is_asked_for_as_the_ipv4_address_that_it_is() -> None:
    plain = question(("127.0.0.1", 40_003), SERVER)
    assert question(("::ffff:127.0.0.1", 40_003), ("::ffff:127.0.0.1", 4280)) == plain
    assert plain[16] == socket.AF_INET
    assert len(plain) == struct.unpack_from("=I", plain)[0] == 72
    sixth = question(("fe80::1%lo", 40_003), ("::1", 4280))
    assert sixth[16] == socket.AF_INET6
    assert len(sixth) == len(plain)


def operator_of(seed: int) -> Operator:
    return Operator(fresh_key(SeededEntropy(seed)))


def test_a_link_is_good_once_and_a_session_is_known_until_many_others_came() -> None:
    operator, chance = operator_of(1), SeededEntropy(3)
    code = operator.link(chance)
    session = operator.enter(code, chance)
    assert session is not None
    assert operator.enter(code, chance) is None
    assert operator.enter("", chance) is None
    assert operator.knows(f"a=b; headrace_session={session}")
    for other in (None, "", f"headrace_session={session}x", f"session={session}", code):
        assert not operator.knows(other)
    for _ in range(MAX_SESSIONS):
        operator.enter(operator.link(chance), chance)
    assert not operator.knows(f"headrace_session={session}")


def test_a_key_is_shown_whole_and_as_a_bearer_token() -> None:
    operator = operator_of(1)
    assert operator.shows(f"Bearer {operator.key}")
    assert operator.shows(f"bearer  {operator.key} ")
    for other in (None, "", operator.key, f"Bearer {operator.key[:-1]}", f"Basic {operator.key}"):
        assert not operator.shows(other)
    assert not operator.shows(f"Bearer {fresh_key(SeededEntropy(2))}")


def test_a_key_file_is_for_its_owner_alone_even_where_another_lay_before(tmp_path: Path) -> None:
    (tmp_path / "operator.key").write_text("old")
    (tmp_path / "operator.key").chmod(0o644)
    (tmp_path / "operator.key.new").symlink_to(tmp_path / "elsewhere")
    place = write_key(tmp_path, "hro_1")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert read_key(tmp_path) == "hro_1"
    assert not (tmp_path / "elsewhere").exists()
    assert read_key(tmp_path / "nowhere") == ""


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("Bearer hr_0123456789abcdef_11", True),
        ("bearer   hro_0123456789abcdef0", True),
        ("Bearer own, Bearer hro_0123456789abcdef0", True),
        ("Bearer eyJhbGciOi", False),
        ("Basic hr_", False),
        ("Bearer hrx_", False),
    ],
)
def test_what_this_platform_gave_out_is_known_by_its_form(text: str, ours: bool) -> None:
    assert is_ours(text.encode()) is ours
