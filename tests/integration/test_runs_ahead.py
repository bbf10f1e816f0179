"""Runs that are sent to a busy instance: begun when it is free, or taken back and never begun."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.integration.runtime_fleets import CLOCK, House, eventually, house, invocation

from headrace.model.event import Event
from headrace.model.invocation import Invocation
from headrace.model.outcome import Crashed, Outcome, Returned, TimedOut
from headrace.model.record import Chunk, encode_events
from headrace.runtime.base import RECALLED, Run, invoke
from headrace.runtime.fleet import Fleet

APP = """
@app.function(orders, order="key", batch_size=1, scaling=Scaling(max=1))
def price(event, context):
    print("begins", event.value["name"])
    time.sleep(event.value["wait"])
    print("ends", event.value["name"])
    if event.value.get("dies"):
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def work(name: str, wait: float = 0.01, *, timeout: float = 5.0, dies: bool = False) -> Invocation:
    value = json.dumps({"name": name, "wait": wait, "dies": dies}).encode()
    body = encode_events([Event(value, key=name)])
    chunk = Chunk("orders", 0, 0, 1, body, 0, 0, 1)
    return replace(invocation("shop.price", timeout=timeout), chunks=(chunk,))


class Submitted:
    """A run, and what comes of it."""

    def __init__(self, fleet: Fleet, invocation: Invocation, after: Run | None = None) -> None:
        self._fleet = fleet
        self._done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._run = fleet.submit(invocation, self._done, after)

    @property
    def takes_another(self) -> bool:
        return self._run.takes_another

    def follow(self, invocation: Invocation) -> Submitted:
        return Submitted(self._fleet, invocation, self._run)

    async def outcome(self) -> Outcome:
        return await self._done


async def busy(home: House, head: Invocation) -> Submitted:
    """An instance whose runs are known to be neither very short nor long, running `head`."""
    for number in range(60):
        await invoke(home.fleet.submit, work(f"warm-{number}", 0.002))
    # On a busy machine, until what was slow is forgotten.
    while not await takes_another(home):
        pass
    await eventually(lambda: home.said()[-1:] == ["ends probe"])
    home.lines.clear()
    return Submitted(home.fleet, head)


async def takes_another(home: House) -> bool:
    probe = Submitted(home.fleet, work("probe", 0.002))
    takes = probe.takes_another
    await probe.outcome()
    return takes


async def test_a_run_sent_ahead_begins_when_the_one_before_it_has_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first"))
        second = first.follow(work("second"))
        assert (first.takes_another, second.takes_another) == (False, False)
        outcomes = [await first.outcome(), await second.outcome()]
        assert all(isinstance(each, Returned) and each.error is None for each in outcomes)
        assert len({each.usage.instance for each in outcomes}) == 1
        assert await eventually(lambda: len(home.lines) == 4)
        assert home.said() == ["begins first", "ends first", "begins second", "ends second"]


async def test_many_runs_go_through_one_instance_each_behind_the_one_before(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        sent = await busy(home, work("0", 0.002))
        for number in range(1, 50):
            following = sent.follow(work(str(number), 0.002))
            assert isinstance(await sent.outcome(), Returned)
            sent = following
        assert isinstance(await sent.outcome(), Returned)
        begun = [f"begins {number}" for number in range(50)]
        assert await eventually(lambda: len(home.lines) == 100)
        assert home.said()[::2] == begun


async def test_a_run_behind_a_slow_one_is_taken_back_and_never_begins_there(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        slow = await busy(home, work("slow", 1.0))
        before = CLOCK.monotonic()
        assert await slow.follow(work("waits")).outcome() is RECALLED
        assert CLOCK.monotonic() - before < 0.9
        assert isinstance(await slow.outcome(), Returned)
        again = await invoke(home.fleet.submit, work("waits"))
        assert isinstance(again, Returned)
        assert await eventually(lambda: len(home.lines) == 4)
        assert home.said() == ["begins slow", "ends slow", "begins waits", "ends waits"]


async def test_an_instance_whose_run_was_taken_back_takes_others_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        slow = await busy(home, work("slow", 0.3))
        assert await slow.follow(work("waits")).outcome() is RECALLED
        assert isinstance(await slow.outcome(), Returned)
        # It is not forgotten at once that a run took long.
        first = await busy(home, work("first"))
        assert first.takes_another
        second = first.follow(work("second"))
        assert isinstance(await first.outcome(), Returned)
        assert isinstance(await second.outcome(), Returned)


async def test_who_dies_is_blamed_and_the_run_behind_it_was_never_begun(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first", dies=True))
        second = first.follow(work("second"))
        died = await first.outcome()
        assert isinstance(died, Crashed)
        assert not died.blameless
        assert await second.outcome() is RECALLED
        assert await eventually(lambda: len(home.lines) == 2)
        assert home.said() == ["begins first", "ends first"]


async def test_a_run_that_was_sent_ahead_is_blamed_for_its_own_death_only(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first"))
        second = first.follow(work("second", dies=True))
        ended = await first.outcome()
        assert isinstance(ended, Returned)
        third = second.follow(work("third"))
        died = await second.outcome()
        assert isinstance(died, Crashed)
        assert died.cause.kind == "Crashed"
        assert await third.outcome() is RECALLED


async def test_a_run_has_its_whole_timeout_from_when_it_begins(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        sent = await busy(home, work("0"))
        for number in range(1, 60):
            following = sent.follow(work(str(number), timeout=0.45))
            assert isinstance(await sent.outcome(), Returned)
            sent = following
        late = sent.follow(work("late", 3.0, timeout=0.45))
        assert isinstance(await sent.outcome(), Returned)
        before = CLOCK.monotonic()
        assert isinstance(await late.outcome(), TimedOut)
        assert 0.4 < CLOCK.monotonic() - before < 1.5


async def test_a_run_behind_one_that_overruns_costs_nobody_an_attempt(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        # So short that its end comes before the run behind it is missed.
        first = await busy(home, work("first", 3.0, timeout=0.01))
        second = first.follow(work("second"))
        assert isinstance(await first.outcome(), TimedOut)
        assert await second.outcome() is RECALLED


async def test_an_instance_that_is_taken_away_gives_back_what_it_had_not_begun(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first", 0.5))
        second = first.follow(work("second"))
        (view,) = home.fleet.instances()
        await home.fleet.kill(view.id)
        taken = await first.outcome()
        assert isinstance(taken, Crashed)
        assert taken.blameless
        assert await second.outcome() is RECALLED


@pytest.mark.parametrize("patience_s", [0.0, 0.002, 0.005, 0.008, 0.009, 0.010, 0.011, 0.02])
async def test_a_run_that_was_not_given_back_did_run_whenever_its_instance_is_killed(
    tmp_path: Path, patience_s: float
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first"))
        second = first.follow(work("second", 0.005))
        (view,) = home.fleet.instances()
        await CLOCK.sleep(patience_s)
        os.kill(view.pid, signal.SIGKILL)
        outcomes = [await first.outcome(), await second.outcome()]
        await CLOCK.sleep(0.05)
        if outcomes[1] is RECALLED:
            assert "begins second" not in home.said()
        else:
            # So it is the one that is blamed, if it did not come to its end.
            assert isinstance(outcomes[0], Returned)


async def test_nothing_is_sent_ahead_while_runs_are_long(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        await invoke(home.fleet.submit, work("long", 0.2))
        after_long = Submitted(home.fleet, work("second", 0.05))
        assert not after_long.takes_another
        await after_long.outcome()


async def test_an_instance_serves_no_run_more_than_it_may(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP.replace("max=1)", "max=1, max_invocations=50)"))
        served: Counter[str] = Counter()
        for number in range(120):
            sent = Submitted(home.fleet, work(str(number), 0.001))
            following = sent.follow(work("behind", 0.001)) if sent.takes_another else None
            served[(await sent.outcome()).usage.instance] += 1
            if following is not None:
                served[(await following.outcome()).usage.instance] += 1
        assert len(served) > 2
        assert max(served.values()) <= 50


async def test_a_host_that_has_no_descriptor_left_sends_nothing_ahead(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        first = await busy(home, work("first", 0.04))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            second = first.follow(work("second"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await second.outcome() is RECALLED
        third = first.follow(work("third"))
        assert isinstance(await first.outcome(), Returned)
        assert isinstance(await third.outcome(), Returned)
