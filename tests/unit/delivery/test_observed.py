"""Where functions were seen to publish is kept, within bounds."""

from __future__ import annotations

import pytest

from headrace.delivery.observed_outputs import ObservedOutputs
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Space
from headrace.model.errors import Unavailable
from headrace.storage.kv.base import Applied
from headrace.storage.kv.memory import MemoryStorage
from headrace.telemetry.history import MAX_OUTPUTS, RunHistory


def noting() -> tuple[RunHistory, list[int]]:
    told: list[int] = []
    return RunHistory(lambda: told.append(1)), told


async def test_what_was_seen_is_known_after_a_restart() -> None:
    storage = MemoryStorage(SystemClock())
    runs, told = noting()
    for _ in range(3):
        runs.published("shop.count", ["totals", "orders", "totals"])
    assert len(told) == 2
    await ObservedOutputs(storage, runs).keep()
    assert runs.new_outputs == []
    again, _ = noting()
    await ObservedOutputs(storage, again).load({"shop.count"})
    assert again.observed() == {"shop.count": {"totals", "orders"}}


async def test_what_was_kept_of_functions_that_are_gone_is_taken_away() -> None:
    storage = MemoryStorage(SystemClock())
    runs, _ = noting()
    runs.published("shop.count", ["totals"])
    runs.published("shop.old", ["totals"])
    await ObservedOutputs(storage, runs).keep()
    again, _ = noting()
    await ObservedOutputs(storage, again).load({"shop.count"})
    assert list(again.observed()) == ["shop.count"]
    assert len(await storage.scan(Space.META, b"outputs/", b"outputs0")) == 1


def test_one_function_has_so_many_outputs_at_most() -> None:
    runs, told = noting()
    runs.published("shop.count", (f"s{number}" for number in range(MAX_OUTPUTS + 10)))
    assert len(runs.observed()["shop.count"]) == len(told) == MAX_OUTPUTS


async def test_what_could_not_be_written_is_written_the_next_time() -> None:
    class Away(MemoryStorage):
        away = True

        async def apply(self, change: Change) -> Applied:
            if self.away:
                raise Unavailable("the disk is away")
            return await super().apply(change)

    storage = Away(SystemClock())
    runs, _ = noting()
    runs.published("shop.count", ["totals"])
    observed = ObservedOutputs(storage, runs)
    with pytest.raises(Unavailable):
        await observed.keep()
    storage.away = False
    await observed.keep()
    assert len(await storage.scan(Space.META, b"outputs/", b"outputs0")) == 1
