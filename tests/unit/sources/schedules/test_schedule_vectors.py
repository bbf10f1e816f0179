"""Recorded next fire times of other schedulers: Unix cron with time zones, AWS cron, AWS expressions.

The vectors are not ours to pass on: `RECORDED_CASES` names their folder; without it these tests
are skipped.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.model.errors import Misuse
from headrace.model.triggers.schedules import Cron
from headrace.sources.schedules.aws_cron import AwsCron
from headrace.sources.schedules.timetable import timetable_of
from headrace.sources.schedules.unix_cron import UnixCron

CASES = Path(os.environ.get("RECORDED_CASES", "")) / "schedules"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(),
    reason="RECORDED_CASES names no folder of recorded schedules",
)


def read(name: str) -> Any:
    return json.loads((CASES / name).read_text())


def moments(texts: list[str]) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in texts]


def test_unix_cron_agrees_with_every_vector_that_two_libraries_agree_on() -> None:
    checked = 0
    for case in read("cron_vectors.json")["agree"]:
        zone = ZoneInfo(case.get("tz", "UTC"))
        if not case["valid"]:
            with pytest.raises(Misuse, match="cron"):
                UnixCron(case["expression"], zone)
            continue
        start = datetime.fromisoformat(case["start"]).replace(tzinfo=zone)
        expected = moments(case["next5_utc"])
        found = list(islice(UnixCron(case["expression"], zone).times(start), len(expected)))
        assert found == expected, case
        checked += 1
    assert checked > 1_000


def test_where_the_libraries_differ_no_fixed_time_comes_twice() -> None:
    for case in read("cron_vectors.json")["disagree"]:
        zone = ZoneInfo(case.get("tz", "UTC"))
        start = datetime.fromisoformat(case["start"]).replace(tzinfo=zone)
        cron = UnixCron(case["expression"], zone)
        found = list(islice(cron.times(start), 10))
        assert found == sorted(set(found))
        minute, hour = case["expression"].split()[:2]
        if not minute.startswith("*") and not hour.startswith("*"):
            wall_times = [time.astimezone(zone).replace(tzinfo=None) for time in found]
            assert len(set(wall_times)) == len(wall_times), case


def test_aws_cron_agrees_with_the_recorded_times() -> None:
    cases = read("aws_cron_vectors.json")
    checked = 0
    for case in [*cases["pyawscron_tests"], *cases["consensus"]]:
        expected = moments(case.get("expected") or case["next"])
        after = datetime.fromisoformat(case["after"])
        found = list(
            islice(AwsCron(case["expression"], ZoneInfo("UTC")).times(after), len(expected))
        )
        assert found == expected, case
        checked += 1
    assert checked > 50


def test_aws_expressions_are_accepted_and_refused_as_aws_does() -> None:
    for case in read("schedule_expression_cases.json"):
        if case["valid"]:
            timetable_of(Cron(case["expression"]))
        else:
            with pytest.raises(Misuse):
                timetable_of(Cron(case["expression"]))
