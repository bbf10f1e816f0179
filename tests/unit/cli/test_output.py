"""Output of commands."""

from __future__ import annotations

from typing import Any

from headrace.cli.output import one_line, plural, short_time, table_lines, text_of, value_text


def test_a_table_is_aligned_with_numbers_to_the_right() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "n": 1},
        {"name": "long name", "n": 12_345},
        {"name": None, "n": None},
    ]
    assert table_lines(rows, {"name": "name", "events": "n"}) == [
        "NAME       EVENTS",
        "a               1",
        "long name  12,345",
        "-               -",
    ]


def test_cells_are_one_line_without_control_characters() -> None:
    assert text_of("a\nb\x1b[31mred") == "a b [31mred"
    assert text_of(True) == "yes"
    assert text_of(["x", "y"]) == "x, y"
    assert text_of([]) == text_of("") == text_of(None) == "-"
    assert text_of(0.12345) == "0.123"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"


def test_times_values_and_counts_are_short() -> None:
    assert short_time("2026-01-31T12:00:00.123456Z") == "2026-01-31T12:00:00Z"
    assert value_text({"value": {"ä": [1]}}) == '{"ä": [1]}'
    assert value_text({"value_text": "a\tb"}) == "a b"
    assert value_text({"value_base64": "AP8="}) == "base64:AP8="
    assert plural(1, "event") == "1 event"
    assert plural(2_000, "event") == "2,000 events"
