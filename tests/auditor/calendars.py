"""Judges schedules by the events they left, the due times those name, and the wall clock.

In: a scene's account. Out: findings.

S1 once for each due time, in order, on the grid, and never early · S2 what is missing was missed by
over a minute, and was treated as the misfire policy says · S3 the function ran once for each
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding

Blobs = list[tuple[int, int, bytes]]

GRACE_US = 60_000_000
MOST_COUNTED = 900
SPARE_US = 2_000_000


class Schedule(msgspec.Struct):
    """A schedule, what it said, and what its function made of it."""

    name: str
    kind: Literal["every", "cron", "at"]
    period: int
    misfire: Literal["once", "skip", "all"]
    began: int
    said: Blobs
    appended: list[int]
    done: Blobs


class Said(msgspec.Struct):
    """One event: the time it is about, when it was appended, and how many times it stands for."""

    due: int
    appended: int
    missed: int
    at: str


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise of the calendar."""
    schedules = msgspec.convert(scene["schedules"], list[Schedule])
    return [
        finding for each in schedules for finding in _check(each, scene["now"], is_skewed=is_skewed)
    ]


def _check(schedule: Schedule, now: int, *, is_skewed: bool) -> list[Finding]:
    name, said = schedule.name, _said(schedule)
    findings: list[Finding] = []
    for one in said:
        if one.appended < one.due and not is_skewed:
            findings.append(
                Finding("S1", f"{name} was {one.due - one.appended} µs early for {one.due}")
            )
    for before, after in itertools.pairwise(said):
        if after.due <= before.due:
            findings.append(Finding("S1", f"{name} fired for {after.due} after {before.due}"))
    grid = _grid(schedule, said)
    off = [one.due for one in said if grid is not None and (one.due - grid) % schedule.period]
    if schedule.kind == "at":
        off = [one.due for one in said if one.due != schedule.began + schedule.period]
    if off:
        findings.append(Finding("S1", f"{name} fired for {off}, which it was not asked to"))
    if schedule.kind != "at":
        findings += _check_gaps(schedule, said, now)
    if not said and not is_skewed and now > schedule.began + schedule.period + SPARE_US:
        findings.append(Finding("S2", f"{name} never fired"))
    return findings + _check_done(schedule, said)


def _said(schedule: Schedule) -> list[Said]:
    found: list[Said] = []
    for (_, first, body), appended in zip(schedule.said, schedule.appended, strict=True):
        for step, (time, headers) in enumerate(rows.times(body)):
            missed = int(headers.get("headrace-missed", 0))
            at = f"_sim.{schedule.name}.{schedule.kind}.0/0/{first + step}"
            found.append(Said(time, appended, missed, at))
    return found


def _grid(schedule: Schedule, said: list[Said]) -> int | None:
    """One of its times; `every` counts from when it was first deployed, so any will do."""
    if schedule.kind == "cron":
        return schedule.began
    return said[0].due if said else None


def _check_gaps(schedule: Schedule, said: list[Said], now: int) -> list[Finding]:
    """Every time between two that fired, and up to now, is accounted for."""
    name, period = schedule.name, schedule.period
    findings: list[Finding] = []
    last = Said(now + period, now, 0, "the end")
    for before, after in itertools.pairwise([*said, last]):
        lacking = [*range(before.due + period, min(after.due, now - SPARE_US), period)]
        stands_for = after.missed - 1 if after.missed > 1 else 0
        if len(lacking) >= MOST_COUNTED and after is not last:
            # So many are not counted one by one.
            stands_for = stands_for and len(lacking)
        if schedule.misfire == "skip":
            lost = [due for due in lacking if after.appended - due <= GRACE_US]
        elif schedule.misfire == "all" or after is last:
            lost = lacking if len(lacking) < MOST_COUNTED else []
        else:
            lost = lacking if stands_for != len(lacking) else []
        if lost:
            findings.append(
                Finding(
                    "S2",
                    f"{name} ({schedule.misfire}) fired for {after.due}, but not for {lost[:5]}",
                )
            )
        if stands_for and stands_for != len(lacking):
            findings.append(
                Finding("S2", f"{name} says {after.missed} were missed, not {len(lacking)}")
            )
    return findings


def _check_done(schedule: Schedule, said: list[Said]) -> list[Finding]:
    done = [
        msgspec.json.decode(value)["at"]
        for _, _, body in schedule.done
        for value, _ in rows.events(body)
    ]
    wanted = [one.at for one in said]
    return (
        [] if done == wanted else [Finding("S3", f"{schedule.name} ran for {done}, not {wanted}")]
    )
