"""The counters that metrics read."""

from __future__ import annotations

from headrace.telemetry.history import RunHistory


def test_what_was_given_up_is_counted_by_where_it_went() -> None:
    runs = RunHistory()
    runs.gave_up("app.f", dead=2, parked=0)
    runs.gave_up("app.f", dead=1, parked=3)
    assert (runs.counters["app.f"].dead, runs.counters["app.f"].parked) == (3, 3)
