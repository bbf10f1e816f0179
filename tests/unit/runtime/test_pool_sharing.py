"""Which instance a run goes to while runs are short: one that is awake, or another that must be woken."""

from __future__ import annotations

from typing import cast

import pytest
from msgspec.structs import replace

from headrace import App, Event, Scaling
from headrace.model.invocation import Invocation
from headrace.runtime.pool import MAX_IN_HAND, Pool
from headrace.runtime.process.instance import Instance
from headrace.runtime.states import InstanceState

app = App("shop")


@app.function()
def price(event: Event[int]) -> int:
    return 1


class Process:
    """What a pool sees of an instance, without a process behind it."""

    def __init__(self) -> None:
        self.state = InstanceState.IDLE
        self.in_hand = self.invocations = 0
        self.tainted = False

    def take(self) -> None:
        self.in_hand += 1
        self.state = InstanceState.BUSY


def pool_of(processes: list[Process], *, run_s: float) -> Pool:
    """A pool that has seen many runs of this length."""

    def fork(_: Pool) -> Instance:
        processes.append(Process())
        return cast(Instance, processes[-1])

    spec = app.functions["shop.price"].spec
    pool = Pool(spec, fork=fork, make_room=lambda: True, now=lambda: 0.0)
    for _ in range(1_000):
        pool.took(run_s)
    return pool


@pytest.mark.parametrize(
    ("run_s", "at_once", "instances"),
    [
        (10e-6, 24, 1),  # over before the host has handed over the next
        (10e-6, MAX_IN_HAND + 1, 2),
        (60e-6, 2, 1),
        (60e-6, 4, 2),  # the third would wait longer than a process takes to wake
        (300e-6, 2, 1),  # shorter than a fork
        (2e-3, 2, 2),
        (100e-3, 3, 3),
    ],
)
def test_short_runs_share_an_instance_as_far_as_that_pays(
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
        chosen = pool.place(Invocation("shop.price", (), mode="call"))
        assert chosen is not None
        cast(Process, chosen).take()
    assert sum(process.in_hand > 0 for process in processes) == instances
    assert max(process.in_hand for process in processes) <= MAX_IN_HAND


@pytest.mark.parametrize(("run_s", "at_once", "instances"), [(60e-6, 32, 2), (100e-3, 8, 8)])
def test_a_new_version_begins_with_the_pace_of_the_one_before(
    run_s: float, at_once: int, instances: int
) -> None:
    before = pool_of([], run_s=run_s)
    processes: list[Process] = []
    pool = pool_of(processes, run_s=1.0)
    pool.keep_pace_of(before)
    for _ in range(at_once):
        chosen = cast(Process, pool.place(Invocation("shop.price", (), mode="call")))
        # None of them has come up yet.
        chosen.state = InstanceState.STARTING
        chosen.in_hand += 1
    assert len(processes) == instances


def test_an_instance_for_a_single_run_is_not_shared_while_it_starts() -> None:
    processes: list[Process] = []
    pool = pool_of(processes, run_s=10e-6)
    pool.spec = replace(pool.spec, scaling=Scaling(max_invocations=1))
    for _ in range(3):
        chosen = cast(Process, pool.place(Invocation("shop.price", (), mode="call")))
        chosen.state = InstanceState.STARTING
        chosen.in_hand += 1
    assert [process.in_hand for process in processes] == [1, 1, 1]
