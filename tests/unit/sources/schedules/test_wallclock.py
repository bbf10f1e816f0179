"""Times on the wall around changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from headrace import At, Cron
from headrace.model.triggers.schedules import Schedule
from headrace.sources.schedules.timetable import timetable_of

START = 1_711_756_800_000_000  # 2024-03-30T00:00Z
BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"


def first(schedule: Schedule) -> datetime:
    moment = timetable_of(schedule).first(START)
    assert moment is not None
    return datetime.fromtimestamp(moment / 1e6, UTC)


@pytest.mark.parametrize(
    ("schedule", "moment"),
    [
        (At("2024-03-31T02:30:00", tz=BERLIN), "2024-03-31T01:00:00+00:00"),
        (At("2024-03-31T02:59:59.999999", tz=BERLIN), "2024-03-31T01:00:00+00:00"),
        (Cron("30 2 31 3 *", tz=BERLIN), "2024-03-31T01:00:00+00:00"),
        (Cron("at(2024-03-31T02:30:00)", tz=BERLIN), "2024-03-31T01:00:00+00:00"),
        (At("2024-03-31T01:59:59", tz=BERLIN), "2024-03-31T00:59:59+00:00"),
        (At("2024-03-31T03:00:01", tz=BERLIN), "2024-03-31T01:00:01+00:00"),
        (At("2024-03-31T02:30:00+01:00", tz=BERLIN), "2024-03-31T01:30:00+00:00"),
        (At("2024-10-27T02:30:00", tz=BERLIN), "2024-10-27T00:30:00+00:00"),
        # A change of half an hour.
        (At("2024-10-06T02:15:00", tz=LORD_HOWE), "2024-10-05T15:30:00+00:00"),
    ],
)
def test_a_time_that_the_clock_skips_is_the_moment_of_the_change(
    schedule: Schedule, moment: str
) -> None:
    assert first(schedule).isoformat() == moment


def test_a_datetime_with_a_zone_keeps_its_moment() -> None:
    wall = datetime(2024, 4, 1, 12, tzinfo=ZoneInfo(BERLIN))
    assert first(At(wall)).isoformat() == "2024-04-01T10:00:00+00:00"
