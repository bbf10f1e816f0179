"""Schedules on virtual time, on the real engine: fired once, whatever happens to the node."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, At, Cron, Event, Every
from headrace.environment.clock import SystemClock
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.model.function import StreamSpec
from headrace.model.record import decode_events
from headrace.model.triggers.schedules import Misfire, Schedule
from headrace.sources.base import SourceAppender
from headrace.sources.schedules.source import (
    MISSED_HEADER,
    ScheduleKeeper,
    ScheduleState,
    decode_state,
    due,
    fingerprint,
    in_words,
)
from headrace.sources.schedules.timetable import timetable_of
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing import World
from headrace.testing.faults import Fault
from headrace.testing.hosts import at_once

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000


def clockwork(*schedules: Schedule) -> App:
    """An app that notes every event of its schedules."""
    app = App("clockwork")
    ticks = app.stream("ticks")

    @app.function(*schedules, output=ticks)
    def tick(event: Event[Any]) -> dict[str, Any]:
        return {"at": event.timestamp, "value": event.value, "headers": dict(event.headers)}

    return app


def fired(world: World) -> list[str]:
    return [
        datetime.fromtimestamp(tick["at"], UTC).strftime("%d %H:%M")
        for tick in world.values("ticks")
    ]


def test_a_daily_schedule_fires_once_a_day_at_its_time() -> None:
    with World(clockwork(Cron("0 7 * * *")), start=NEW_YEAR) as world:
        world.advance("3d")
        assert fired(world) == ["01 07:00", "02 07:00", "03 07:00"]


def test_in_three_years_of_two_clock_changes_each_no_day_is_left_out_or_doubled() -> None:
    schedule = Cron("30 2 * * *", tz="America/New_York")
    with World(clockwork(schedule), start=NEW_YEAR) as world:
        world.advance("1096d")
        days = [datetime.fromtimestamp(tick["at"], UTC).date() for tick in world.values("ticks")]
        assert len(days) == 1_096
        assert {(after - before).days for before, after in pairwise(days)} == {1}


def test_a_world_with_a_schedule_comes_to_rest() -> None:
    with World(clockwork(Every("1s"))) as world:
        world.run_until_idle()
        assert world.now.timestamp() < NEW_YEAR.timestamp() + 2


def test_a_schedule_survives_its_host() -> None:
    with World(clockwork(Every("10m")), start=NEW_YEAR) as world:
        for _ in range(6):
            world.advance("7m")
            world.crash()
        world.advance("18m")
        assert fired(world) == [f"01 00:{minute}" for minute in (10, 20, 30, 40, 50)] + ["01 01:00"]


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "pump", "claim"))]
)
def test_a_host_that_dies_between_two_steps_neither_loses_nor_doubles_a_time(label: str) -> None:
    with World(clockwork(Every("10m")), start=NEW_YEAR) as world:
        for passes in (1, 2, 3):
            world.crash(label, passes)
            world.advance("30m")
        world.run_until_idle()
        assert fired(world) == [
            f"01 {minute // 60:02}:{minute % 60:02}" for minute in range(10, 91, 10)
        ]


TOGETHER = 8


def many() -> App:
    """Many schedules that are due in the same instants, and one that is not."""
    same: list[Schedule] = [Cron("*/10 * * * *", payload=n) for n in range(TOGETHER)]
    return clockwork(*same, Every("7m", payload="apart"))


def counted(world: World) -> dict[tuple[str, Any], int]:
    """The number of times that each schedule fired for each time."""
    found: dict[tuple[str, Any], int] = {}
    for tick, at in zip(world.values("ticks"), fired(world), strict=True):
        found[at, tick["value"]] = found.get((at, tick["value"]), 0) + 1
    return found


def once_each(minutes: int) -> dict[tuple[str, Any], int]:
    together = {(minute, n) for minute in range(10, minutes + 1, 10) for n in range(TOGETHER)}
    apart = {(minute, "apart") for minute in range(7, minutes + 1, 7)}
    return {
        (f"01 {minute // 60:02}:{minute % 60:02}", value): 1
        for minute, value in (*together, *apart)
    }


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "claim"))]
)
@pytest.mark.parametrize("passes", [1, 2, 5])
def test_many_that_are_due_at_once_fire_once_each_though_the_host_dies(
    label: str, passes: int
) -> None:
    with World(many(), start=NEW_YEAR) as world:
        world.crash(label, passes)
        world.advance("35m")
        world.run_until_idle()
        assert counted(world) == once_each(35)


@pytest.mark.parametrize("seed", range(6))
def test_many_that_are_due_at_once_fire_once_each_in_any_weather(seed: int) -> None:
    with World(many(), seed=seed, start=NEW_YEAR) as world:
        world._lives.weather.odds = {
            Fault.DIE_BEFORE: 0.01,
            Fault.DIE_AFTER: 0.01,
            Fault.UNKNOWN: 0.03,
            Fault.FULL: 0.03,
            Fault.CONFLICT: 0.03,
            Fault.SLOW: 0.05,
            Fault.REFUSED: 0.03,
        }
        world._lives.loop.run_for(35 * 60)
        world._lives.weather.odds = {}
        # What the weather did to sources was reported, as it should be.
        world._lives.failures.clear()
        world.advance("4m")
        assert counted(world) == once_each(39)


def test_two_nodes_fire_many_that_are_due_at_once_once_each() -> None:
    with World(many(), start=NEW_YEAR) as world:
        world._drive(world._lives.take_over())
        world.advance("35m")
        assert counted(world) == once_each(35)


def test_a_wall_clock_that_is_set_back_repeats_nothing() -> None:
    with World(clockwork(Cron("0 * * * *")), start=NEW_YEAR) as world:
        world.advance("3h30m")
        world._lives.clock.set_back(7_200)
        world.advance("2h20m")
        assert fired(world) == ["01 01:00", "01 02:00", "01 03:00"]
        world.advance("20m")
        assert fired(world)[3:] == ["01 04:00"]


def test_a_wall_clock_that_leaps_ahead_leaves_what_the_misfire_policy_says() -> None:
    with World(clockwork(Cron("0 * * * *")), start=NEW_YEAR) as world:
        world.advance("30m")
        world._lives.clock.set_back(-5 * 3_600)
        world.advance("1s")
        assert fired(world) == ["01 05:00"]
        assert world.values("ticks")[0]["headers"] == {MISSED_HEADER: "5"}


def test_two_nodes_fire_a_time_once() -> None:
    with World(clockwork(Every("1m")), start=NEW_YEAR) as world:
        world._drive(world._lives.take_over())
        world.advance("5m")
        assert fired(world) == [f"01 00:0{minute}" for minute in range(1, 6)]


def test_a_changed_schedule_starts_again_and_a_changed_payload_does_not() -> None:
    with World(clockwork(Cron("0 7 * * *", payload={"n": 1})), start=NEW_YEAR) as world:
        world.advance("6h")
        changed = clockwork(Cron("0 7 * * *", payload={"n": 2})).spec()
        world._drive(world._lives.node.supervisor.deploy(changed))
        world.advance("2h")
        assert fired(world) == ["01 07:00"]
        assert world.values("ticks")[0]["value"] == {"n": 2}
        world._drive(world._lives.node.supervisor.deploy(clockwork(Every("30m")).spec()))
        world.advance("31m")
        assert fired(world) == ["01 07:00", "01 08:30"]


def test_periods_are_distinguished_to_the_last_second() -> None:
    for one, other in ((1_209_600, 1_209_601), (8_640_000.5, 8_640_000)):
        assert fingerprint(Every(one)) != fingerprint(Every(other))
        at = [At("2026-01-01T00:00Z", every=period) for period in (one, other)]
        assert fingerprint(at[0]) != fingerprint(at[1])
    assert in_words(Every("100d")) == "every 8640000 s"
    assert in_words(Every(0.1)) == "every 0.1 s"


@pytest.mark.parametrize(("when", "fires"), [("23:59:01", 1), ("23:58:59", 0)])
def test_a_moment_that_passes_while_the_node_starts_is_kept(when: str, fires: int) -> None:
    with World(clockwork(At(f"2025-12-31T{when}")), start=NEW_YEAR) as world:
        world.advance("1h")
        assert len(fired(world)) == fires


def test_a_moment_fires_once_and_one_that_is_past_does_not() -> None:
    soon, past = At("2026-01-02T08:00"), At("2025-12-24T18:00")
    with World(clockwork(soon, past), start=NEW_YEAR) as world:
        world.advance("30d")
        assert fired(world) == ["02 08:00"]


def test_the_event_says_what_fired_and_for_which_time() -> None:
    with World(clockwork(Cron("@daily", tz="Europe/Berlin")), start=NEW_YEAR) as world:
        world.advance("1d")
        assert world.values("ticks")[0]["value"] == {
            "schedule": "@daily Europe/Berlin",
            "time": "2026-01-01T23:00:00Z",
        }


@pytest.mark.parametrize(
    ("misfire", "times", "missed"),
    [("once", [300], ["5"]), ("skip", [], []), ("all", [60, 120, 180, 240, 300], ["1"] * 5)],
)
def test_missed_times_are_treated_as_the_policy_says(
    misfire: Misfire, times: list[int], missed: list[str]
) -> None:
    schedule = Every(60, misfire=misfire)
    state = ScheduleState("", 60 * SECOND)
    events, after = due(schedule, timetable_of(schedule), state, 365 * SECOND - SECOND, "s")
    late = [event for event in events if event.headers]
    assert [(event.time or 0) // SECOND for event in late] == times[: len(late)]
    assert [(event.headers or {})[MISSED_HEADER] for event in late] == missed[: len(late)]
    assert after.next == 420 * SECOND
    assert [(event.time or 0) // SECOND for event in events if not event.headers][-1:] == [360]


def test_no_more_than_a_thousand_missed_times_are_made_up_for() -> None:
    schedule = Every(1, misfire="all")
    events, after = due(
        schedule, timetable_of(schedule), ScheduleState("", SECOND), 10_000 * SECOND, "s"
    )
    assert len(events) == 1_000
    assert events[-1].time == 10_000 * SECOND
    assert after.next == 10_001 * SECOND


@given(
    st.sampled_from([Cron("*/5 * * * *"), Cron("0 0 31 * *"), Every(60), At("2026-01-01T00:01")]),
    st.sampled_from(["once", "skip", "all"]),
    st.integers(0, 4_000_000) | st.integers(0, 400 * SECOND),
)
def test_what_was_made_ready_is_what_would_have_been_said_then(
    schedule: Schedule, misfire: Misfire, delay: int
) -> None:
    schedule = msgspec.structs.replace(schedule, misfire=misfire)
    times = timetable_of(schedule)
    state = ScheduleState("", times.first(round(NEW_YEAR.timestamp()) * SECOND))
    assert state.next is not None
    now = state.next + delay
    storage = MemoryStorage(SystemClock())
    broker = MemoryBroker(storage, clock=SystemClock())
    at_once(broker.declare(StreamSpec(name="_s")))
    keeping = ScheduleKeeper(
        schedule, times, state, SourceAppender(storage, broker, storage.apply, stream="_s")
    )
    keeping.prepare()
    draft = keeping.draft(now)
    events, after = due(schedule, times, state, now, "_s")
    assert [event for each in draft.appends for event in decode_events(each.body)] == events
    assert decode_state(draft.checkpoint) == after
    keeping.said()
    assert keeping.due == after.next


def test_a_schedule_that_cannot_be_read_stops_the_deployment() -> None:
    with pytest.raises(Misuse, match="Bad hour"), World(clockwork(Cron("0 25 * * *"))):
        pass


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: Cron("* *"), "has 2 fields"),
        (lambda: Cron(""), "is not an expression"),
        (lambda: Cron("@daily", misfire="later"), "is `'later'`; use `once`, `skip` or `all`"),  # type: ignore[arg-type]
        (lambda: Every("soon"), "write seconds"),
        (lambda: Every(0), "out of range"),
        (lambda: Every(True), "write seconds"),
        (lambda: At("tomorrow"), "is not a moment"),
        (lambda: At("2026-01-01T00:00", every="1y"), "write seconds"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(write: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        write()
