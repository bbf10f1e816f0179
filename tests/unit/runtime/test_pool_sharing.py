"""Which instance a run goes to while runs are short: one that is awake, or another that must be woken."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from msgspec.structs import replace

from headrace import App, Event, Scaling
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Outcome
from headrace.runtime.fleet_run import FleetRun
from headrace.runtime.pool import MAX_IN_FLIGHT, Pool
from headrace.runtime.process.instance import Instance
from headrace.runtime.states import InstanceState

app = App("shop")


@app.function()
def price(event: Event[int]) -> int:
    return 1


class Process:
    """What a pool sees of an instance, without a process behind it."""

    def __init__(self, *, comes_up: bool = True) -> None:
        self.comes_up = comes_up
        self.state = InstanceState.IDLE
        self.in_flight = self.invocations = 0
        self.tainted = False

    def run(self, run: FleetRun) -> None:
        self.in_flight += 1
        self.state = InstanceState.BUSY if self.comes_up else InstanceState.STARTING


def pool_of(processes: list[Process], *, run_s: float, comes_up: bool = True) -> Pool:
    """A pool that has seen many runs of this length."""

    def fork(_: Pool) -> Instance:
        processes.append(Process(comes_up=comes_up))
        return cast(Instance, processes[-1])

    spec = app.functions["shop.price"].spec
    pool = Pool(spec, fork=fork, free_capacity=lambda: True, now=lambda: 0.0)
    for _ in range(1_000):
        pool.ran(run_s)
    return pool


def start_run(pool: Pool) -> None:
    """Start a run that does not end."""
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    pool.start(FleetRun(CallInvocation("shop.price", event=b""), done, pool.start))


@pytest.mark.parametrize(
    ("run_s", "at_once", "instances"),
    [
        (10e-6, 24, 1),  # over before the host has handed over the next
        (10e-6, MAX_IN_FLIGHT + 1, 2),
        (60e-6, 2, 1),
        (60e-6, 4, 2),  # the third would wait longer than a process takes to wake
        (300e-6, 2, 1),  # shorter than a fork
        (2e-3, 2, 2),
        (100e-3, 3, 3),
    ],
)
async def test_short_runs_share_an_instance_as_far_as_that_pays(
    run_s: float, at_once: int, instances: int
) -> None:
    processes: list[Process] = []
    pool = pool_of(processes, run_s=run_s)
    if run_s < 100e-6:
        # Another one sleeps nearby.
        pool.instances.update(cast(list[Instance], [Process(), Process()]))
        first, second = (cast(Process, each) for each in pool.instances)
        for each in (first, second):
            processes.append(each)
            pool.freed(cast(Instance, each))
    for _ in range(at_once):
        start_run(pool)
    assert pool.waiting == 0
    assert sum(process.in_flight > 0 for process in processes) == instances
    assert max(process.in_flight for process in processes) <= MAX_IN_FLIGHT


@pytest.mark.parametrize(("run_s", "at_once", "instances"), [(60e-6, 32, 2), (100e-3, 8, 8)])
async def test_a_new_version_begins_with_the_pace_of_the_one_before(
    run_s: float, at_once: int, instances: int
) -> None:
    before = pool_of([], run_s=run_s)
    processes: list[Process] = []
    # None of its instances has come up yet.
    pool = pool_of(processes, run_s=1.0, comes_up=False)
    pool.keep_pace_of(before)
    for _ in range(at_once):
        start_run(pool)
    assert len(processes) == instances


@pytest.mark.parametrize("comes_up", [True, False])
@pytest.mark.parametrize(("most", "shared"), [(1, [1, 1, 1]), (2, [2, 1])])
async def test_an_instance_takes_no_more_runs_than_it_may(
    most: int, shared: list[int], comes_up: bool
) -> None:
    processes: list[Process] = []
    pool = pool_of(processes, run_s=10e-6, comes_up=comes_up)
    pool.spec = replace(pool.spec, scaling=Scaling(max_invocations=most))
    for _ in range(3):
        start_run(pool)
    assert [process.in_flight for process in processes] == shared


async def test_an_instance_that_is_to_be_replaced_is_shared_no_more() -> None:
    processes: list[Process] = []
    pool = pool_of(processes, run_s=10e-6)
    start_run(pool)
    processes[0].tainted = True
    start_run(pool)
    assert [process.in_flight for process in processes] == [1, 1]
