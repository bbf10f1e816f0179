"""The log of a serving node: which events were given up, each in one line, and not more than its budget."""

from __future__ import annotations

import pytest

from headrace.environment.clock import SystemClock
from headrace.model.effects import DeadEvent
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.node.dev_output import BURST
from headrace.node.failure_log import FailureLog
from headrace.telemetry.history import RunHistory, RunRecord


class StoppedClock(SystemClock):
    """A clock that stands still."""

    def __init__(self) -> None:
        self.monotonic = lambda: 100.0


def letter(message: str) -> DeadEvent:
    cause = Cause("KeyError", message, "")
    return DeadEvent("shop.price", Position("orders", 0, 7), b"", cause, 3, 0, 0)


def test_a_dead_letter_and_a_parked_event_are_a_warning_of_one_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = RunHistory(observer=FailureLog(StoppedClock()))
    runs.record(RunRecord("shop.price", "", "i", 0, 0.1, 1, 1, "failed", "orders/0/7", "E"))
    runs.gave_up("shop.price", dead=[letter("two\nlines\x1b[2J")], parked=[letter("x")])
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        (
            "WARNING",
            "shop.price: dead letter orders/0/7 after 3 attempts: KeyError: two\\nlines\\x1b[2J "
            "(headrace dead show shop.price orders/0/7)",
        ),
        (
            "WARNING",
            "shop.price: parked orders/0/7 after 3 attempts: KeyError: x "
            "(headrace parked list shop.price)",
        ),
    ]


def test_what_is_beyond_the_budget_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(StoppedClock())
    log.gave_up("shop.price", [letter("x")] * (BURST + 5), [])
    log.gave_up("shop.price", [letter("x")] * 7, [])
    log.flush()
    said = [each.getMessage() for each in caplog.records[BURST:]]
    assert said == ["shop.price: ... 5 lines left out", "shop.price: ... 7 lines left out"]
