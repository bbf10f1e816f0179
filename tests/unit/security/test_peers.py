"""The owner of the other end of a connection, in the kernel's table; and the operator's key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from headrace.security.operator import MAX_SESSIONS, Operator, fresh_key, read_key, write_key
from headrace.security.peers import ends, owner_in
from headrace.security.tokens import is_ours
from headrace.world.entropy import SeededEntropy

ROWS = [
    "   0: 0100007F:10B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 900 1 0",
    "   1: 0100007F:9C40 0100007F:10B8 01 00000000:00000000 00:00000000 00000000  1000        0 901 1 0",
    "   2: 0200007F:9C41 0100007F:10B8 01 00000000:00000000 00:00000000 00000000  1001        0 902 1 0",
    "   3: 0100007F:9C42 0100007F:10B8 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0",
    "   4: 0000000000000000FFFF00000100007F:9C43 0000000000000000FFFF00000100007F:10B8 01 "
    "00000000:00000000 00:00000000 00000000  1002        0 903 1 0",
    "   5: 00000000000000000000000001000000:9C44 00000000000000000000000001000000:10B8 01 "
    "00000000:00000000 00:00000000 00000000  1003        0 904 1 0",
]
DOOR = ("127.0.0.1", 4280)


@pytest.mark.parametrize(
    ("far", "near", "uid"),
    [
        (("127.0.0.1", 40_000), DOOR, 1000),
        (("127.0.0.2", 40_001), DOOR, 1001),
        (("127.0.0.1", 40_001), DOOR, None),
        (("127.0.0.1", 40_002), DOOR, None),
        (("127.0.0.1", 40_003), DOOR, 1002),
        (("::ffff:127.0.0.1", 40_003), ("::ffff:127.0.0.1", 4280), 1002),
        (("::1", 40_004), ("::1", 4280), 1003),
        (("127.0.0.1", 40_000), ("127.0.0.1", 4281), None),
    ],
)
def test_the_owner_of_the_very_socket_is_found_and_of_a_closed_one_nobody(
    far: tuple[str, int], near: tuple[str, int], uid: int | None
) -> None:
    assert owner_in(ROWS, ends(far, near)) == uid


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
