"""Output about triggers that fail and about replication slots."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.cli.source_status import print_failing, print_slots, source_findings

SLOT: dict[str, Any] = {
    "name": "headrace_shop_note_table_0",
    "active": True,
    "wal_status": "reserved",
    "behind_bytes": 1200,
    "kept_bytes": 2_000_000_000,
    "safe_bytes": None,
    "error": "",
    "state": "behind",
}


def row(function: str, state: str = "running", error: str = "", **more: Any) -> dict[str, Any]:
    said = {"function": function, "place": 0, "trigger": "custom", "stream": "s", "slot": None}
    return {**said, "state": state, "error": error, **more}


ROWS = [
    row("shop.poll", "failing", "`shop.feed` failed: ValueError: no such page\nTraceback ..."),
    row("shop.late", "halted", "its trigger cannot work"),
    row("shop.note", trigger="table", slot=SLOT),
    row("shop.tick", trigger="cron"),
]


def test_failing_triggers_are_listed_with_their_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_failing(ROWS)
    assert capsys.readouterr().out == (
        "\n"
        "FUNCTION   TRIGGER  STATE    ERROR\n"
        "shop.poll  custom   failing  `shop.feed` failed: ValueError: no such page Traceback ...\n"
        "shop.late  custom   halted   its trigger cannot work\n"
    )
    print_failing(ROWS[2:])
    assert capsys.readouterr().out == ""


def test_slots_are_listed_with_what_they_keep(capsys: pytest.CaptureFixture[str]) -> None:
    print_slots(ROWS)
    assert capsys.readouterr().out == (
        "\n"
        "FUNCTION   SLOT                        BEHIND BYTES     KEPT BYTES  READ NOW  WAL       STATE\n"
        "shop.note  headrace_shop_note_table_0         1,200  2,000,000,000  yes       reserved  behind\n"
    )
    gone = {**SLOT, "state": "unknown", "error": "the database has no such slot", "active": False}
    print_slots([row("shop.note", slot=gone)])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "headrace_shop_note_table_0: the database has no such slot"
    )
    print_slots(ROWS[:2])
    assert capsys.readouterr().out == ""


def test_the_doctor_says_what_is_ill_and_how_slots_stand() -> None:
    assert source_findings(ROWS) == [
        ("triggers", False, "2 sources of 4 running"),
        (
            "trigger shop.poll",
            False,
            "custom is failing: `shop.feed` failed: ValueError: no such page\nTraceback ...",
        ),
        ("trigger shop.late", False, "custom is halted: its trigger cannot work"),
        (
            "slot headrace_shop_note_table_0",
            False,
            "behind: 1,200 bytes behind, 2,000,000,000 kept, being read, wal reserved",
        ),
    ]
    assert source_findings(ROWS[3:]) == [("triggers", True, "1 source of 1 running")]
    assert source_findings([]) == []
