"""The counters that metrics read."""

from __future__ import annotations

from headrace.model.effects import DeadEvent
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.telemetry.history import RunHistory


def test_what_was_given_up_is_counted_by_where_it_went() -> None:
    runs = RunHistory()
    letter = DeadEvent("app.f", Position("s", 0, 0), b"", Cause("E", "", ""), 1, 0, 0)
    runs.gave_up("app.f", dead=[letter] * 2)
    runs.gave_up("app.f", dead=[letter], parked=[letter] * 3)
    assert (runs.counters["app.f"].dead, runs.counters["app.f"].parked) == (3, 3)
