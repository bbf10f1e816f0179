"""What a fork brings along and what it must not: spares, hooks of others, numbers, pids."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.integration.runtime_fleets import eventually, house, parent_of

from headrace.model.outcome import Returned

FRESH = """
@app.function(orders, scaling=Scaling(max_invocations=1, spare={spare}))
def price(events, context):
    import random, tempfile
    print(os.getpid(), os.getuid(), random.random(), os.getcwd(), tempfile.gettempdir())
    time.sleep(0.05)
"""


def offspring(pid: int) -> list[int]:
    """The children a process has now."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_spare_becomes_the_next_instance_and_is_an_instance_like_any_other(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(FRESH.format(spare=True))
        running = asyncio.ensure_future(home.run("price"))
        assert await eventually(lambda: any(view.pid for view in home.fleet.instances()))
        zygote = parent_of(home.fleet.instances()[0].pid)
        await running
        spares: list[list[int]] = []
        became: list[list[int]] = []
        for _ in range(4):
            # Given: nothing runs, and yet the zygote has a child.
            assert await eventually(
                lambda: not home.fleet.instances() and len(offspring(zygote)) == 1
            )
            spares.append(offspring(zygote))
            running = asyncio.ensure_future(home.run("price"))
            assert await eventually(lambda: any(view.pid for view in home.fleet.instances()))
            became.append([view.pid for view in home.fleet.instances()])
            assert isinstance(await running, Returned)
        assert await eventually(lambda: len(home.lines) == 5)
        said = [line.split() for line in home.said()]
        assert became == spares
        apart = range(1 if os.geteuid() == 0 else 2, 5)
        assert all(len({line[place] for line in said}) == 5 for place in apart)
        assert all(line[3] == line[4] for line in said)


async def test_without_being_asked_no_spare_is_kept(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(FRESH.format(spare=False).replace("max_invocations=1, ", ""))
        await home.run("price")
        [view] = home.fleet.instances()
        await asyncio.sleep(0.1)
        assert offspring(parent_of(view.pid)) == [view.pid]


async def test_hooks_at_forks_run_and_threads_and_logs_work_after_them(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import logging, threading
log = logging.getLogger("shop")
born = []
os.register_at_fork(after_in_child=lambda: born.append(os.getpid()))
@app.function(orders)
def price(events, context):
    thread = threading.Thread(target=lambda: log.warning("from a thread"))
    thread.start()
    thread.join(5)
    log.warning("native %s", threading.main_thread().native_id == os.getpid())
    log.warning("hooked %s", born == [os.getpid()])
""")
        assert isinstance(await home.run("price"), Returned)
        assert await eventually(lambda: len(home.lines) == 3)
        assert home.said() == ["from a thread", "native True", "hooked True"]


async def test_what_an_instance_forks_itself_is_mended_like_any_fork(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import logging, random, threading
held = logging.Handler()
@app.function(orders)
def price(events, context):
    ours, theirs = os.pipe()
    known = random.getstate()
    # Given: another thread, and a lock of logging's that it holds while we fork.
    release, locked = threading.Event(), threading.Event()
    def hold():
        with held.lock:
            locked.set()
            release.wait(5)
    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(5)
    child = os.fork()
    if child == 0:
        free = held.lock.acquire(timeout=1)
        alone = threading.active_count() == 1
        os.write(theirs, repr((free, alone, random.getstate() != known)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    release.set()
    thread.join(5)
    print(os.read(ours, 100).decode(), random.getstate() == known)
""")
        assert isinstance(await home.run("price"), Returned)
        assert await eventually(lambda: len(home.lines) == 1)
        # Then: the lock is free in the child, the thread gone, and chance another; ours is as it was.
        assert home.said() == ["(True, True, True) True"]


async def test_no_two_instances_share_chance_or_a_folder_one_by_one_or_at_once(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(FRESH.format(spare=False).replace("max_invocations=1", "max=40"))
        # Given: one by one, each is made ready for in time; at once, nearly none is.
        for _ in range(3):
            await home.run("price")
            for view in home.fleet.instances():
                await home.fleet.kill(view.id)
            assert await eventually(lambda: not home.fleet.instances())
        await asyncio.gather(*(home.run("price") for _ in range(12)))
        assert await eventually(lambda: len(home.lines) == 15)
        said = [line.split() for line in home.said()]
        # Runs at once may share an instance; chance never repeats, nor do folders of instances.
        assert len({line[2] for line in said}) == 15
        assert len({line[3] for line in said}) == len({line[0] for line in said})
        assert all(line[3] == line[4] for line in said)


async def test_whoever_has_answered_is_known_by_its_pid(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders, scaling=Scaling(max=40))
def price(events, context): time.sleep(0.01)
""")
        waiting = {asyncio.ensure_future(home.run("price")) for _ in range(30)}
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert all(view.pid for view in home.fleet.instances() if view.state != "starting")
