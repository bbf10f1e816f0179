"""Schedules: functions that the calendar sets off, while hosts die and the wall clock is set.

In: planned schedules. Out: what each said, and what its function made of it. Nothing is judged here;
`tests/auditor/calendars.py` does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251 - the calendar's own chance, from the seed
from typing import Any, Literal

import msgspec

from headrace.model.effects import Change
from headrace.model.policy import Retry
from headrace.model.triggers.schedules import At, Cron, Every, Misfire, Schedule
from headrace.sdk.app import App
from headrace.sdk.context import Context
from headrace.sdk.event import Event as Seen
from headrace.simulation.scenes.base import APP, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.virtual_time import EPOCH


class PlannedSchedule(msgspec.Struct, frozen=True):
    """One schedule; `seconds` is its period (cron: every so many), or its moment for `at`."""

    name: str
    kind: Literal["every", "cron", "at"]
    seconds: float
    misfire: Misfire


class PlannedSchedules(msgspec.Struct, frozen=True, tag="calendar"):
    """Some schedules, and for how long they are watched."""

    schedules: tuple[PlannedSchedule, ...]
    watched: float


def draw_calendar(chance: Random) -> PlannedSchedules:
    """Some schedules."""
    found = []
    for place in range(chance.choice((1, 2, 3))):
        kind: Literal["every", "cron", "at"] = chance.choice(("every", "every", "cron", "at"))
        period = (
            chance.choice((0.7, 1.0, 2.5)) if kind == "every" else chance.choice((1.0, 2.0, 3.0))
        )
        misfire: Misfire = chance.choice(("once", "skip", "all"))
        found.append(PlannedSchedule(f"s{place}", kind, period, misfire))
    return PlannedSchedules(tuple(found), chance.choice((6.0, 10.0)))


class ScheduleScene:
    """The schedules, played."""

    kind = "calendar"

    def __init__(self, planned: PlannedSchedules) -> None:
        self.planned = planned
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare a function for each schedule."""
        self._stage = stage
        for planned in self.planned.schedules:
            self._listen(app, planned)

    def _listen(self, app: App, planned: PlannedSchedule) -> None:
        output = app.stream(f"{planned.name}.out")

        @app.function(
            _schedule(planned),
            name=planned.name,
            retry=Retry(attempts=20, initial_delay=0.1, max_delay=0.5),
        )
        def handle(event: Seen[Any], context: Context) -> None:
            context.publish(output, {"at": event.position})

    async def perform(self) -> None:
        """Let time pass."""
        await self._stage.wait_until(self.planned.watched)

    async def finish(self) -> None:
        """Let the schedules catch up."""
        await self._stage.clock.sleep(5.0)

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Nothing is noted: the streams say it all."""

    def account(self) -> dict[str, Any]:
        """Return the schedules, and the events and runs of each."""
        lives = self._stage.lives
        return {
            "now": lives.clock.now(),
            "schedules": [
                {
                    "name": planned.name,
                    "kind": planned.kind,
                    "period": round(planned.seconds * 1e6),
                    "misfire": planned.misfire,
                    "began": EPOCH,
                    "said": lives.log_of(stream := f"_{APP}.{planned.name}.{planned.kind}.0"),
                    "appended": lives.appended_to(stream),
                    "done": lives.log_of(f"{planned.name}.out"),
                }
                for planned in self.planned.schedules
            ],
        }


def _schedule(planned: PlannedSchedule) -> Schedule:
    match planned.kind:
        case "every":
            return Every(planned.seconds, misfire=planned.misfire)
        case "cron":
            return Cron(f"*/{int(planned.seconds)} * * * * *", misfire=planned.misfire)
        case _:
            when = datetime.fromtimestamp(EPOCH / 1e6, UTC) + timedelta(seconds=planned.seconds)
            return At(when, misfire=planned.misfire)
