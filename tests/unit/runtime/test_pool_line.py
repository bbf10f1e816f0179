"""The line of a pool whose instances are all busy: one for tasks and for values, in order, bounded."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import cast

import pytest

from headrace import App, Event, Scaling
from headrace.errors import Overloaded, Unavailable
from headrace.model.invocation import CallInvocation, Invocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.runtime.base import Run, Waiter, invoke
from headrace.runtime.fleet_run import FleetRun
from headrace.runtime.pool import MAX_WAITING, START_PAUSE_S, Pool
from headrace.runtime.process.instance import Instance
from headrace.runtime.states import InstanceState

app = App("shop")
DONE = Returned(result=b"1")


@app.function(scaling=Scaling(max=1))
def price(event: Event[int]) -> int:
    return 1


class Process:
    """What a pool sees of an instance, without a process behind it."""

    def __init__(self, rig: Rig) -> None:
        self.state = InstanceState.IDLE
        self.in_flight = self.invocations = 0
        self.tainted = False
        self._rig = rig
        self._runs: list[FleetRun] = []

    def run(self, run: FleetRun) -> None:
        if run.invocation.key == "too large":
            # As an instance does that cannot send it.
            self._rig.refused.append(run)
            self._rig.pool.freed(cast(Instance, self))
            return
        self.in_flight += 1
        self.state = InstanceState.BUSY
        self._runs.append(run)
        self._rig.begun.append(run.invocation.key)

    def end(self) -> FleetRun:
        """Answer the first run it has in hand."""
        run = self.let_go()
        run.ended(DONE)
        return run

    def let_go(self) -> FleetRun:
        """Be done with the first run it has in hand, and say nothing of it."""
        run = self._runs.pop(0)
        self.in_flight -= 1
        self.state = InstanceState.BUSY if self._runs else InstanceState.IDLE
        self._rig.pool.freed(cast(Instance, self))
        return run

    def stop(self) -> None:
        """It goes when it likes."""


class Told:
    """A waiter that is not a task."""

    def __init__(self) -> None:
        self.heard: list[Outcome | BaseException] = []
        self.gone = False
        self.run: Run | None = None

    def done(self) -> bool:
        return self.gone

    def set_result(self, result: Outcome, /) -> None:
        self.heard.append(result)

    def set_exception(self, exception: BaseException, /) -> None:
        self.heard.append(exception)


class Rig:
    """A pool of one instance, which is busy with `first`."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.refused: list[FleetRun] = []
        self.trouble: Exception | None = None
        spec = app.functions["shop.price"].spec
        self.process = Process(self)
        self.pool = Pool(spec, fork=self._fork, free_capacity=lambda: True, now=lambda: 0.0)
        self.first = Told()
        self.begin("first", self.first)
        assert self.pool.waiting == 0

    def _fork(self, _: Pool) -> Instance:
        if self.trouble is not None:
            raise self.trouble
        return cast(Instance, self.process)

    def begin(self, key: str, told: Told | None = None, *, alone: bool = False) -> FleetRun:
        run = FleetRun(asked(key), told or Told(), self.pool.start)
        run.alone = alone
        self.pool.start(run)
        return run

    def submit(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> FleetRun:
        run = FleetRun(invocation, done, self.pool.start)
        self.pool.start(run)
        return run


def asked(key: str) -> Invocation:
    return CallInvocation("shop.price", key=key, event=b"")


async def test_tasks_and_values_stand_in_one_line() -> None:
    rig = Rig()
    rig.begin("value")
    task = asyncio.create_task(invoke(rig.submit, asked("task")))
    await asyncio.sleep(0)
    rig.begin("last")
    assert rig.pool.waiting == 3
    for _ in range(3):
        rig.process.end()
    assert rig.begun == ["first", "value", "task", "last"]
    assert await task == DONE


def test_whoever_comes_when_an_instance_is_free_does_not_overtake() -> None:
    rig = Rig()
    rig.begin("waits")
    rig.process.end()
    # Nothing of the loop ran in between.
    rig.begin("comes")
    assert rig.pool.waiting == 1
    assert rig.begun == ["first", "waits"]


def test_what_is_withdrawn_is_never_begun() -> None:
    rig = Rig()
    gone, stays = Told(), Told()
    run = rig.begin("gone", gone)
    rig.begin("stays", stays)
    assert run.cancel()
    assert not run.cancel()
    rig.process.end()
    rig.process.end()
    assert rig.begun == ["first", "stays"]
    assert (gone.heard, stays.heard) == ([], [DONE])


def test_what_has_begun_is_not_withdrawn() -> None:
    rig = Rig()
    told = Told()
    run = rig.begin("begun", told)
    rig.process.end()
    assert not run.cancel()
    rig.process.end()
    assert told.heard == [DONE]


async def test_a_task_that_is_cancelled_leaves_the_line() -> None:
    rig = Rig()
    task = asyncio.create_task(invoke(rig.submit, asked("cancelled")))
    await asyncio.sleep(0)
    rig.begin("next")
    task.cancel()
    # It is cancelled, and has not heard of it yet.
    rig.process.end()
    assert rig.begun == ["first", "next"]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.pool.waiting == 0


def test_what_waits_behind_a_run_that_is_to_be_alone_goes_once_that_is_withdrawn() -> None:
    rig = Rig()
    for _ in range(1_000):
        rig.pool.ran(1e-6)
    rig.process.end()
    rig.begin("short")
    run = rig.begin("alone", alone=True)
    rig.begin("behind")
    assert rig.begun == ["first", "short"]
    assert run.cancel()
    assert rig.begun == ["first", "short", "behind"]


def test_the_line_has_an_end() -> None:
    rig = Rig()
    for _ in range(MAX_WAITING):
        rig.begin("waits")
    with pytest.raises(Overloaded, match="wait for an instance already"):
        rig.begin("too many")
    assert rig.pool.waiting == MAX_WAITING


def test_what_waits_in_a_pool_that_drains_is_submitted_again() -> None:
    old, new = Rig(), Rig()
    told, gone = Told(), Told()
    for key, waiter in (("waits", told), ("gone", gone)):
        old.pool.start(FleetRun(asked(key), waiter, new.pool.start))
    gone.gone = True
    old.pool.drain()
    assert (old.pool.waiting, new.pool.waiting) == (0, 1)
    new.process.end()
    new.process.end()
    assert new.begun == ["first", "waits"]
    assert told.heard == [DONE]


def test_a_run_that_is_lost_is_run_again_alone_and_a_third_time_its_last() -> None:
    rig = Rig()
    told = Told()
    rig.begin("unlucky", told)
    rig.process.end()
    for _ in range(2):
        run = rig.process.let_go()
        assert told.heard == []
        run.lost("its zygote died")
        assert run.alone
    rig.process.let_go().lost("its zygote died")
    assert rig.begun == ["first", *["unlucky"] * 3]
    (refused,) = told.heard
    assert isinstance(refused, Unavailable)
    assert str(refused) == "no instance of `shop.price` stays up: its zygote died"


def test_a_run_that_has_ended_leaves_no_circle_with_the_waiter_that_knows_it() -> None:
    rig = Rig()
    told = Told()
    told.run = rig.begin("answered", told)
    rig.process.end()
    rig.process.end()
    assert told.heard == [DONE]
    alive = weakref.ref(told)
    gc.disable()
    try:
        del told
        assert alive() is None
    finally:
        gc.enable()


def test_a_run_that_is_lost_is_not_run_again_where_nobody_wants_its_outcome() -> None:
    rig = Rig()
    told = Told()
    rig.begin("unwanted", told)
    rig.process.end()
    run = rig.process.let_go()
    told.gone = True
    run.lost("its zygote died")
    assert rig.begun == ["first", "unwanted"]
    assert told.heard == []


@pytest.mark.parametrize("refuse_all", [False, True])
def test_where_no_instance_can_be_forked_somebody_is_told(refuse_all: bool) -> None:
    rig = Rig()
    waits = [Told(), Told()]
    for told in waits:
        rig.begin("waits", told)
    rig.pool.instances.clear()
    rig.trouble = Unavailable("no")
    rig.pool.call_next(refuse_all=refuse_all)
    heard = [rig.trouble]
    assert [told.heard for told in waits] == [heard, heard if refuse_all else []]


def test_a_long_line_of_runs_that_cannot_be_sent_is_refused_one_by_one() -> None:
    rig = Rig()
    for _ in range(MAX_WAITING):
        rig.begin("too large")
    rig.process.end()
    assert len(rig.refused) == MAX_WAITING


def test_after_a_start_that_failed_runs_are_refused_until_the_next_try() -> None:
    now, forks = [0.0], [0]
    process = Process(Rig())

    def fork(_: Pool) -> Instance:
        forks[0] += 1
        return cast(Instance, process)

    spec = app.functions["shop.price"].spec
    pool = Pool(spec, fork=fork, free_capacity=lambda: True, now=lambda: now[0])
    for failed, pause in enumerate((START_PAUSE_S, 2 * START_PAUSE_S), 1):
        pool.start(FleetRun(asked("tries"), Told(), pool.start))
        pool.start_failed(Cause("ConnectionError", "no database"))
        pool.gone(cast(Instance, process))
        now[0] += 0.9 * pause
        with pytest.raises(Unavailable, match="ConnectionError: no database"):
            pool.start(FleetRun(asked("too early"), Told(), pool.start))
        assert forks[0] == failed
        now[0] += 0.2 * pause
    pool.start(FleetRun(asked("starts"), Told(), pool.start))
    pool.started()
    assert pool.not_started is None
