"""When a fleet is looked after: at once where something changed, a tick after something began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.environment.tasks import Tasks
from headrace.model.policy import FleetLimits
from headrace.runtime.budget import Budget
from headrace.runtime.housekeeping import TICK_S, Housekeeping
from headrace.runtime.process.memory_use import KernelKills
from headrace.testing.virtual_time import VirtualClock, VirtualLoop


class Fleet:
    """One without apps, that counts how often it was looked after, and when."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.looked: list[float] = []
        self.upkeep: Housekeeping
        self.begins_while_burying = False
        self.errors: list[Exception] = []
        self.told: list[BaseException] = []

    async def bury(self) -> None:
        self.looked.append(self.loop.time())
        if self.errors:
            raise self.errors.pop()
        if self.begins_while_burying:
            self.begins_while_burying = False
            self.begin()

    def begin(self) -> None:
        if self.upkeep.rests:
            self.upkeep.run_started()

    async def live(self, *deeds: tuple[float, str]) -> list[float]:
        """Do these, each after so many seconds; when it was looked after meanwhile."""
        clock = VirtualClock(self.loop)
        tasks = Tasks(lambda _name, error: self.told.append(error))
        self.upkeep = Housekeeping(
            clock=clock,
            tasks=tasks,
            budget=Budget(FleetLimits(), instances={}, deployments=list),
            kernel=KernelKills(),
            instances={},
            deployments=list,
            close_retired=self.bury,
        )
        self.upkeep.start()
        for pause, deed in deeds:
            await clock.sleep(pause)
            self.begin() if deed == "begin" else self.upkeep.changed()
        await clock.sleep(10)
        self.upkeep.close()
        await tasks.close()
        return self.looked


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """On virtual time."""
    loop = VirtualLoop()
    yield Fleet(loop)
    loop.close()


def test_what_is_begun_while_it_rests_is_looked_at_a_tick_later_and_once(fleet: Fleet) -> None:
    looked = fleet.loop.drive(fleet.live((1, "begin"), (0, "begin"), (0.01, "begin")))
    assert looked == pytest.approx([0, 1 + TICK_S], abs=1e-3)


def test_what_has_changed_is_looked_at_now(fleet: Fleet) -> None:
    looked = fleet.loop.drive(fleet.live((1, "change"), (1, "change")))
    assert looked == pytest.approx([0, 1, 2], abs=1e-3)


def test_what_is_begun_while_it_looks_is_not_overlooked(fleet: Fleet) -> None:
    fleet.begins_while_burying = True
    looked = fleet.loop.drive(fleet.live())
    assert looked == pytest.approx([0, TICK_S], abs=1e-3)


def test_it_goes_on_whatever_it_met(fleet: Fleet) -> None:
    fleet.errors = [OSError(24, "Too many open files"), KeyError("x"), ValueError("y")]
    looked = fleet.loop.drive(fleet.live((1, "change")))
    assert [type(error) for error in fleet.told] == [ValueError, KeyError, OSError]
    assert looked == pytest.approx([0, TICK_S, 3 * TICK_S, 7 * TICK_S, 1], abs=1e-3)
