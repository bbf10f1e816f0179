"""Next times and missed times, with the clock changes of spring and autumn."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from headrace.model.errors import Misuse
from headrace.model.triggers.schedules import At, Cron, Every, Schedule
from headrace.sources.schedules.aws_cron import AwsCron
from headrace.sources.schedules.timetable import timetable_of
from headrace.sources.schedules.unix_cron import UnixCron

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)
MINUTE = 60_000_000


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def texts(times: list[datetime]) -> list[str]:
    return [f"{time.astimezone(UTC):%d %H:%M:%S}" for time in times]


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_daily_time_that_comes_twice_in_autumn_fires_once(expression: str) -> None:
    times = list(islice(UnixCron(expression, BERLIN).times(AUTUMN), 3))
    assert texts(times) == ["25 00:30:00", "26 01:30:00", "27 01:30:00"]


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_daily_time_that_spring_skips_fires_at_the_change(expression: str) -> None:
    times = list(islice(UnixCron(expression, BERLIN).times(SPRING), 2))
    assert texts(times) == ["29 01:00:00", "30 00:30:00"]


def test_several_times_within_the_skipped_hour_fire_once() -> None:
    times = list(islice(UnixCron("0 0,15,30 2 * * *", BERLIN).times(SPRING), 2))
    assert texts(times) == ["29 01:00:00", "30 00:00:00"]


def test_a_start_within_the_second_coming_a_daily_time_does_not_fire_again() -> None:
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert second.astimezone(BERLIN).fold == 1
    for expression in ("30 2 * * *", "0 30 2 * * *"):
        first = next(UnixCron(expression, BERLIN).times(second))
        assert texts([first]) == ["26 01:30:00"]


@pytest.mark.parametrize("expression", ["30 * * * *", "0 30 * * * *"])
def test_every_hour_counts_as_it_is_when_the_clock_changes(expression: str) -> None:
    autumn = datetime(2026, 10, 24, 23, 40, tzinfo=UTC)
    times = list(islice(UnixCron(expression, BERLIN).times(autumn), 3))
    assert texts(times) == ["25 00:30:00", "25 01:30:00", "25 02:30:00"]


def test_aws_leaves_a_skipped_time_out_and_takes_a_doubled_one_once() -> None:
    daily = AwsCron("30 2 * * ? *", BERLIN)
    assert texts(list(islice(daily.times(SPRING), 2))) == ["30 00:30:00", "31 00:30:00"]
    assert texts(list(islice(daily.times(AUTUMN), 2))) == ["25 00:30:00", "26 01:30:00"]


def test_aws_every_half_hour_goes_through_the_change_without_a_gap_or_a_double() -> None:
    for start in (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 24, 23, tzinfo=UTC)):
        times = list(islice(AwsCron("0/30 * * * ? *", BERLIN).times(start), 8))
        gaps = {(after - before).total_seconds() for before, after in pairwise(times)}
        assert gaps == {1_800.0}


def test_a_schedule_in_a_zone_of_half_hours_is_right() -> None:
    time = next(UnixCron("0 9 * * *", ZoneInfo("Asia/Kolkata")).times(SPRING))
    assert texts([time]) == ["29 03:30:00"]


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (Cron("61 * * * *"), "Bad minute"),
        (Cron("0 0 30 2 *"), "Bad day-of-month"),
        (Cron("@noon"), "`@noon` is unknown"),
        (Cron("0 0 * * *", tz="Europe/Atlantis"), "no time zone `Europe/Atlantis`"),
        (Cron("cron(0 0 * * * *)"), "exactly one of"),
        (Cron("cron(0 0 32 * ? *)"), "not from 1 to 31"),
        (Cron("cron(0 0 5-1 * ? *)"), "runs backwards"),
        (Cron("cron(0/0 0 1 * ? *)"), "a step is 1 or more"),
        (Cron("cron(0 0 31 2 ? *)"), "no date will ever fit it"),
        (Cron("cron(0 0 29 FEB ? 2025-2027)"), "no date will ever fit it"),
        (Cron("rate(1 minutes)"), "not an AWS rate"),
        (Cron("when(now)"), "`when` is unknown"),
        (At("2026-01-01"), "no time of day"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_cause(schedule: Schedule, says: str) -> None:
    with pytest.raises(Misuse, match=says.replace("(", r"\(")):
        timetable_of(schedule)


def test_a_rate_counts_from_the_first_deployment() -> None:
    times = timetable_of(Cron("rate(5 minutes)"))
    assert times.first(1_000) == 1_000 + 5 * MINUTE
    assert times.following(1_000 + 5 * MINUTE) == 1_000 + 10 * MINUTE


def test_missed_periods_are_counted_however_many_there_are() -> None:
    times = timetable_of(Every(0.1))
    now = 10**15
    assert times.missed(0, now, 3) == [now - 200_000, now - 100_000, now]


def test_a_moment_is_read_in_its_time_zone_and_does_not_come_again() -> None:
    times = timetable_of(At("2026-07-01T09:00", tz="Europe/Berlin"))
    moment = micros("2026-07-01T07:00:00")
    assert times.first(moment - 1) == moment
    assert times.following(moment) is None
    assert times.first(moment) is None


def test_a_recurring_moment_that_is_past_keeps_to_its_grid() -> None:
    times = timetable_of(At(datetime(2026, 1, 1, tzinfo=UTC), every="1d"))
    assert times.first(micros("2026-01-03T05:00:00")) == micros("2026-01-04T00:00:00")


def test_the_latest_of_a_great_many_missed_calendar_times_are_found() -> None:
    times = timetable_of(Cron("* * * * * *"))
    now = micros("2026-06-01T00:00:00")
    missed = times.missed(micros("2026-01-01T00:00:00"), now, 10)
    assert missed == [now - second * 1_000_000 for second in range(9, -1, -1)]
