"""What a log that keeps its own disk asks of every committer, broken on purpose.

One defect at a time, switched on only here; the simulation must find it among plans with such a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.auditor.judge import judge

from headrace.delivery.commit.committer import Committer
from headrace.model.effects import Change, Check, Delete, Space
from headrace.simulation import plan_extras
from headrace.simulation.campaign import play_plan
from headrace.simulation.plan import plan_of
from headrace.simulation.plan_values import Plan
from headrace.storage import outbox
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.remote_memory import RemoteMemoryLog
from headrace.storage.outbox import LogOutbox

SEEDS = 1_600

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Plant, str, str]] = {}


def plant(invariants: str, where: str = "") -> Callable[[Plant], Plant]:
    """Register a defect that shows as one of `invariants` in the plans that have this scene."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = function, invariants, where
        return function

    return register


def _cut(patch: pytest.MonkeyPatch, is_meant: Callable[[Check], bool], *, rows_first: bool) -> None:
    """Commit the rows and the appends of those changes by themselves, which is what one must not do."""
    real = Committer.commit

    async def in_two(self: Any, change: Change) -> Any:
        if not change.appends or not all(map(is_meant, change.checks)) or not change.checks:
            return await real(self, change)
        rows, appends = replace(change, appends=()), Change(appends=change.appends)
        if rows_first:
            await real(self, rows)
            return await real(self, appends)
        applied = await real(self, appends)
        await real(self, rows)
        return applied

    patch.setattr(Committer, "commit", in_two)


# --- committers in two steps ---------------------------------------------------------------------


@plant("D1 D2", "desk")
def a_request_is_marked_as_kept_before_it_is(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda check: check.space is Space.MARKS, rows_first=True)


@plant("S1 S3", "calendar")
def a_source_appends_before_it_compares_its_checkpoint(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda check: check.space is Space.META and check.fence, rows_first=False)


@plant("Q1", "queue")
def a_delayed_message_is_appended_before_its_row_goes(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda check: check.space is Space.TIMERS, rows_first=False)


@plant("Q1", "queue")
def a_delayed_message_is_appended_after_its_row_has_gone(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda check: check.space is Space.TIMERS, rows_first=True)


# --- the outbox ----------------------------------------------------------------------------------


@plant("I1 I2")
def what_waits_for_the_log_is_deleted_before_it_is_there(patch: pytest.MonkeyPatch) -> None:
    real = LogOutbox._publish

    async def hasty(self: Any, writer: Any, rows: Any) -> None:
        deletes = tuple(Delete(Space.OUTBOX, key) for key, _ in rows)
        await self._storage.apply(Change(deletes=deletes))
        await real(self, writer, rows)

    patch.setattr(LogOutbox, "_publish", hasty)


@plant("I2")
def the_log_takes_what_it_has_taken(patch: pytest.MonkeyPatch) -> None:
    real = RemoteMemoryLog.take

    def forgetful(self: Any, id: int, epoch: int, appends: Any) -> None:
        self._remote.taken.pop(id, None)
        real(self, id, epoch, appends)

    patch.setattr(RemoteMemoryLog, "take", forgetful)


@plant("I1")
def what_a_host_left_behind_is_not_published(patch: pytest.MonkeyPatch) -> None:
    async def own(self: Any) -> Any:
        low = pack(self._writer)
        return await self._storage.scan(Space.OUTBOX, low, after(low), limit=outbox.PAGE)

    patch.setattr(LogOutbox, "_page", own)


@plant("I1")
def the_latest_is_published_first(patch: pytest.MonkeyPatch) -> None:
    real = LogOutbox._page

    async def reversed_(self: Any) -> Any:
        return (await real(self))[-1:]

    patch.setattr(LogOutbox, "_page", reversed_)


@plant("I2")
def outputs_are_published_although_their_commit_does_not_land(patch: pytest.MonkeyPatch) -> None:
    real = LogOutbox.stage

    def eager(self: Any, appends: Any, look: Any) -> Any:
        applied = real(self, appends, look)
        self._log._ledger.stage([replace(each, ids=None) for each in appends], look)
        self._log._ledger.landed()
        return applied

    patch.setattr(LogOutbox, "stage", eager)


@plant("I2")
def an_id_that_comes_again_is_not_known(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox._KnownIds, "_is_known", lambda self, key: False)


# --- the tests -----------------------------------------------------------------------------------


def _plans(where: str) -> Iterator[Plan]:
    for plan in map(plan_of, range(SEEDS)):
        if not where or where in {scene.__struct_config__.tag for scene in plan.scenes}:
            yield plan


@pytest.mark.parametrize("name", PLANTS)
def test_the_simulation_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, invariants, where = PLANTS[name]
    monkeypatch.setattr(plan_extras, "REMOTE", 1.0)
    planted(monkeypatch)

    for plan in _plans(where):
        found = play_plan(plan, judge)[0]
        if any(finding[:2] in invariants.split() for finding in found):
            return
    pytest.fail(f"{SEEDS} seeds did not find `{name}`")
