"""The lines that `headrace dev` prints: what is said of what was observed, and how."""

from __future__ import annotations

from datetime import UTC

from headrace.model.effects import DeadEvent
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.node.dev_lines import (
    MAX_TEXT,
    Line,
    line_of_answer,
    line_of_dead,
    line_of_left_out,
    line_of_log,
    line_of_parked,
    line_of_run,
    written,
)
from headrace.node.dev_output import OutputSelection
from headrace.telemetry.history import AnsweredRequest, LogLine, RunRecord

NOON = 43_200_000_000
CAUSE = Cause("KeyError", "'durian'", "")
LETTER = DeadEvent("shop.price", Position("orders", 0, 7), b"", CAUSE, 3, 0, NOON)


def text(line: Line | None, *, color: bool = False) -> str:
    assert line is not None
    return written(line, width=10, zone=UTC, color=color)


def run(outcome: str, first: str, events: int = 1) -> RunRecord:
    return RunRecord(
        "shop.price", "k", "i", NOON, 0.25, events, 2, outcome, first, "KeyError: 'durian'"
    )


def test_what_fails_names_the_command_that_looks_closer() -> None:
    assert text(line_of_run(run("failed", "orders/0/7"))) == (
        "12:00:00.250  WARNING  shop.price  failed at attempt 2, event orders/0/7: "
        "KeyError: 'durian' (headrace explain orders/0/7)\n"
    )
    assert "timed out at attempt 2, 1,500 events from orders/0/7: " in text(
        line_of_run(run("timed-out", "orders/0/7", 1_500))
    )
    assert text(line_of_run(run("crashed", ""))) == (
        "12:00:00.250  ERROR    shop.price  crashed: KeyError: 'durian' (headrace invocations shop.price)\n"
    )
    assert text(line_of_dead(LETTER)) == (
        "12:00:00.000  ERROR    shop.price  dead letter orders/0/7 after 3 attempts: "
        "KeyError: 'durian' (headrace dead show shop.price orders/0/7)\n"
    )
    assert text(line_of_parked(LETTER)).endswith("(headrace parked list shop.price)\n")
    assert line_of_run(run("succeeded", "orders/0/7")) is None


def test_a_request_is_printed_with_its_function_unless_it_only_looked_at_the_node() -> None:
    def said(method: str, status: int, function: str = "") -> Line | None:
        return line_of_answer(AnsweredRequest(NOON, method, "/price/%1B", status, 0.0123, function))

    assert text(said("GET", 200, "shop.price")) == (
        "12:00:00.000  INFO     shop.price  GET /price/%1B 200 in 12.3 ms\n"
    )
    assert "headrace    POST /price/%1B 200" in text(said("POST", 200))
    assert said("GET", 200) is None
    levels = [line.level for status in (404, 500) if (line := said("GET", status))]
    assert levels == ["WARNING", "ERROR"]


def test_lines_are_aligned_cut_and_harmless_to_a_terminal() -> None:
    wrote = line_of_log(LogLine(1, NOON, "shop", "i", "", "warning", "one\ntwo\x1b[2J\n"))
    first = "12:00:00.000  WARNING  shop        "
    assert text(wrote) == f"{first}one\n{' ' * len(first)}two\\x1b[2J\n"
    assert len(text(Line(NOON, "INFO", "f", "x" * 9_999))) < MAX_TEXT + 50
    assert text(line_of_left_out(NOON, "shop.a", 1_234)).endswith("  ... 1,234 lines left out\n")


def test_levels_are_coloured_where_that_is_asked_for() -> None:
    def begins(level: str) -> str:
        return text(Line(NOON, level, "f", "x"), color=True)[14:19]

    assert begins("ERROR") == "\x1b[31m"
    assert begins("warning") == "\x1b[33m"
    assert begins("DEBUG")[:4] == "\x1b[2m"
    assert begins("INFO") == "INFO "
    assert begins("LOUD") == "LOUD "


def test_a_selection_leaves_out_what_does_not_fail_and_what_others_do() -> None:
    error, info = Line(NOON, "ERROR", "shop.price", ""), Line(NOON, "INFO", "shop.price", "")
    assert [OutputSelection(quiet=True).takes(each) for each in (error, info)] == [True, False]
    for only, taken in (("shop", True), ("shop.price", True), ("sho", False), ("shop.pric", False)):
        assert OutputSelection(only=(only,)).takes(info) is taken
    node = Line(NOON, "INFO", "", "reloaded")
    assert [OutputSelection(only=("a",)).takes(node, is_node=each) for each in (True, False)] == [
        True,
        False,
    ]
    assert OutputSelection(only=("shop", "shop.price", "shpo")).unknown(["shop.price"]) == ["shpo"]
