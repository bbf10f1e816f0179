"""Zygotes that are replaced, and memory that runs out: of an instance, of a fleet, of a cgroup."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.integration.runtime_fleets import House, eventually, house, lives, parent_of

from headrace.model.errors import Unavailable
from headrace.model.outcome import Crashed, Returned
from headrace.model.policy import FleetLimits

ROUND = """
@app.function(orders, scaling=Scaling(max=4, max_invocations=1))
def price(events, context): time.sleep(0.005)
@app.function(orders)
def slow(events, context): time.sleep(1.0)
"""

HOARD = """
hoard = []
def take(mib): hoard.append(os.urandom(1 << 20) * mib)
@app.function(orders, resources=Resources(memory=None))
def one(events, context):
    hoard.clear(); take(40)
@app.function(orders, resources=Resources(memory=None))
def two(events, context):
    hoard.clear(); take(40)
@app.function(orders, resources=Resources(memory=None))
def growing(events, context):
    while True:
        take(4)
        time.sleep(0.01)
"""


def zygotes(home: House) -> list[int]:
    """The processes that the instances of a house were forked from."""
    return sorted({parent_of(view.pid) for view in home.fleet.instances() if view.pid})


async def test_a_zygote_is_replaced_after_its_forks_while_everything_goes_on(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, limits=FleetLimits(zygote_forks=8)) as home:
        await home.deploy(ROUND)
        slow = asyncio.ensure_future(home.run("slow"))
        assert await eventually(lambda: any(view.pid for view in home.fleet.instances()))
        [first] = zygotes(home)
        outcomes = await asyncio.gather(*[home.run("price") for _ in range(40)])
        assert all(isinstance(each, Returned) and each.error is None for each in outcomes)
        # Then: what the old one has in hand is finished before it goes.
        outcome = await slow
        assert isinstance(outcome, Returned)
        assert outcome.error is None
        assert await eventually(lambda: not lives(first))
        assert isinstance(await home.run("slow"), Returned)
        assert first not in zygotes(home)
        assert not any("zygote" in line for line in home.said())


async def test_a_zygote_is_replaced_for_its_age_and_idle_instances_with_it(tmp_path: Path) -> None:
    async with house(tmp_path, limits=FleetLimits(zygote_age=1.0)) as home:
        await home.deploy(ROUND)
        await home.run("slow")
        [first] = zygotes(home)
        assert await eventually(lambda: not lives(first))
        assert isinstance(await home.run("slow"), Returned)
        assert zygotes(home) != [first]


async def test_a_zygote_is_not_replaced_by_other_code_than_was_deployed(tmp_path: Path) -> None:
    async with house(tmp_path, limits=FleetLimits(zygote_forks=2)) as home:
        await home.deploy(ROUND)
        home.write(ROUND + "# another version\n")
        for _ in range(4):
            await home.run("price")
        assert await eventually(lambda: any("deploy it again" in line for line in home.said()))
        assert isinstance(await home.run("price"), Returned)


async def test_data_that_have_changed_keep_no_zygote_from_being_replaced(tmp_path: Path) -> None:
    async with house(tmp_path, limits=FleetLimits(zygote_forks=2)) as home:
        await home.deploy(ROUND)
        slow = asyncio.ensure_future(home.run("slow"))
        # The instance is seen while it runs: afterwards a spare may already have replaced both.
        assert await eventually(lambda: any(view.pid for view in home.fleet.instances()))
        [first] = zygotes(home)
        await slow
        (home.folder / "prices.csv").write_text("apple,3\n")
        for _ in range(3):
            await home.run("price")
        assert await eventually(lambda: not lives(first))
        assert any("other data files" in line for line in home.said())
        assert isinstance(await home.run("price"), Returned)


async def test_a_zygote_that_dies_while_it_is_replaced_is_replaced(tmp_path: Path) -> None:
    async with house(tmp_path, limits=FleetLimits(zygote_forks=1)) as home:
        await home.deploy("time.sleep(0.3)\n" + ROUND)
        slow = asyncio.ensure_future(home.run("slow", within=20))
        assert await eventually(lambda: any(view.pid for view in home.fleet.instances()))
        [first] = zygotes(home)
        await asyncio.sleep(0.2)
        os.kill(first, 9)
        assert isinstance(await slow, Returned)
        assert isinstance(await home.run("price"), Returned)


async def test_idle_instances_go_before_the_fleet_has_too_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.budget.WEIGH_EVERY_S", 0.05)
    async with house(tmp_path, limits=FleetLimits(memory=80 << 20)) as home:
        await home.deploy(HOARD)
        assert isinstance(await home.run("one"), Returned)
        assert isinstance(await home.run("two"), Returned)
        assert await eventually(lambda: len(home.fleet.instances()) <= 1)
        for _ in range(3):
            assert isinstance(await home.run("one"), Returned)
            assert isinstance(await home.run("two"), Returned)


async def test_when_those_at_work_use_too_much_the_one_that_uses_most_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.budget.WEIGH_EVERY_S", 0.05)
    async with house(tmp_path, limits=FleetLimits(memory=120 << 20)) as home:
        await home.deploy(
            HOARD + "@app.function(orders)\ndef small(events, context): time.sleep(1)\n"
        )
        small = asyncio.ensure_future(home.run("small"))
        outcome = await home.run("growing", within=20)
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "OutOfMemory"
        assert "120 MiB" in outcome.cause.message
        assert "`max_memory`" in outcome.cause.message
        assert isinstance(await small, Returned)


async def test_when_the_apps_alone_use_all_memory_calls_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.budget.WEIGH_EVERY_S", 0.01)
    async with house(tmp_path, limits=FleetLimits(memory=32 << 20)) as home:
        await home.deploy("kept = os.urandom(1 << 20) * 64\n" + ROUND)
        # The first may run: the app has not been weighed yet. Where it has, its start is refused.
        with suppress(Unavailable):
            await home.run("price")
        assert await eventually(lambda: not home.fleet.instances())
        await asyncio.sleep(0.2)
        with pytest.raises(Unavailable, match=r"of the 32 MiB .*`max_memory`"):
            await home.run("price")


@pytest.mark.parametrize("words", ["os.abort()", "import ctypes; ctypes.string_at(0)"])
async def test_a_crash_with_all_memory_in_use_is_put_down_to_memory(
    tmp_path: Path, words: str
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(f"""
@app.function(orders, resources=Resources(memory=64 << 20))
def bad(events, context):
    kept = os.urandom(1 << 20) * 60
    {words}
@app.function(orders, resources=Resources(memory=64 << 20))
def lean(events, context):
    {words}
""")
        full, lean = await home.run("bad"), await home.run("lean")
        assert isinstance(full, Crashed)
        assert isinstance(lean, Crashed)
        assert (full.cause.kind, lean.cause.kind) == ("OutOfMemory", "Crashed")
        assert "its limit is 64 MiB" in full.cause.message


IN_A_CGROUP = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [{source!r}]
Path({procs!r}).write_text("0")
from headrace.model.policy import FleetLimits
from tests.integration.runtime_fleets import House
async def main():
    home = House(Path(sys.argv[1]), limits=FleetLimits(memory=4 << 30))
    await home.deploy('''
@app.function(orders, resources=Resources(memory=None))
def bad(events, context):
    hoard = []
    while True: hoard.append(os.urandom(1 << 20) * 4)
@app.function(orders)
def good(events, context): pass
''')
    print((await home.run("bad", within=20)).cause)
    print((await home.run("good")).error)
    await home.fleet.close()
    await home.tasks.close()
asyncio.run(main())
"""


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup of ours with a limit, of whichever version the machine has."""
    name = f"headrace-test-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    group, file = (
        (old / name, "memory.limit_in_bytes") if old.is_dir() else (new / name, "memory.max")
    )
    try:
        group.mkdir()
        (group / file).write_text(str(limit))
    except OSError as error:
        pytest.skip(f"needs a memory cgroup of its own: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def test_a_kill_by_the_kernel_for_memory_is_told_as_such_and_the_host_is_spared(
    tmp_path: Path,
) -> None:
    with memory_cgroup(256 << 20) as group:
        program = IN_A_CGROUP.format(
            source=str(Path(__file__).parents[2]), procs=str(group / "cgroup.procs")
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert "OutOfMemory" in said[0]
        assert "the kernel killed it for memory: its cgroup may use 256 MiB in all" in said[0]
        assert said[1] == "None"
