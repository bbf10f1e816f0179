"""State of a replication slot, in words."""

from __future__ import annotations

import pytest

from headrace.model.replication_slot import SLOT_WARNING_BYTES, Slot


@pytest.mark.parametrize(
    ("slot", "state"),
    [
        (Slot("s", True, "reserved", 0, 56, None), "ok"),
        (Slot("s", False, "extended", 10, 1 << 29, None), "ok"),
        (Slot("s", True, "reserved", 0, SLOT_WARNING_BYTES + 1, None), "behind"),
        (Slot("s", True, "reserved", SLOT_WARNING_BYTES + 1, 0, None), "behind"),
        (Slot("s", False, "unreserved", 0, 1, 0), "at risk"),
        (Slot("s", False, "lost", None, None, None), "lost"),
        (Slot("s", error="the database has no slot `s`"), "unknown"),
        (Slot("s", False, "", None, None, None), "ok"),
    ],
)
def test_a_slot_is_described_in_one_word(slot: Slot, state: str) -> None:
    assert slot.state() == state


def test_the_warning_level_is_the_askers() -> None:
    slot = Slot("s", True, "reserved", 5, 100, None)
    assert (slot.state(100), slot.state(99)) == ("ok", "behind")
