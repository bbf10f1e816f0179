"""Real zygotes, real forks: cold, warm, hibernating, redeployed, drained, killed from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.integration.runtime_fleets import CLOCK, eventually, house, invocation, lives, parent_of

from headrace.model.errors import Misuse, Unavailable, Unknown
from headrace.model.outcome import Crashed, Returned
from headrace.model.policy import FleetLimits
from headrace.runtime.base import invoke

PLAIN = """
@app.function(orders)
def price(events, context):
    print(os.getpid())
"""


async def test_a_function_runs_in_another_process_and_the_next_run_finds_it_warm(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(PLAIN)
        first = await home.run("price")
        second = await home.run("price")
        assert isinstance(first, Returned)
        assert isinstance(second, Returned)
        assert first.error is None
        assert (first.usage.cold, second.usage.cold) == (True, False)
        assert first.usage.instance == second.usage.instance
        await eventually(lambda: len(home.said()) == 2)
        assert len(set(home.said())) == 1
        assert home.fleet.instances()[0].pid not in {0, os.getpid()}
        assert home.fleet.cold_starts.count == len(home.fleet.cold_starts.latest) == 1
        (view,) = home.fleet.instances()
        assert (view.state, view.invocations, view.function) == ("idle", 2, "shop.price")
        assert 0 < view.memory < 64 << 20


async def test_what_the_author_published_and_stored_comes_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.services.rows["seen"] = (3, bytes([41]))
        await home.deploy("""
@app.function(orders)
def price(events, context):
    for event in events:
        context.state.put("seen", context.state.get("seen", type=int) + 1)
        context.publish(priced, event.value, key=event.key)
""")
        outcome = await home.run("price")
        assert isinstance(outcome, Returned)
        assert outcome.error is None
        assert [append.stream for append in outcome.appends] == ["priced"]
        assert [(read.key, read.version) for read in outcome.reads] == [("seen", 3)]
        assert [(write.key, write.value) for write in outcome.writes] == [("seen", bytes([42]))]


async def test_lines_name_their_invocation_and_where_they_were_said(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context):
    print("half", end=" ")
    print("line")
    print("to stderr", file=sys.stderr)
    context.logger.warning("watch %d", 7)
    subprocess.run(["echo", "bare"])
    print("no newline", end="")
""")
        await invoke(home.fleet.submit, invocation("shop.price", key="orders/0/9"))
        assert await eventually(lambda: len(home.lines) >= 5)
        said = {line.message: line for line in home.lines}
        assert set(said) == {"half line", "to stderr", "watch 7", "bare", "no newline"}
        assert {line.invocation for line in home.lines if line.message != "bare"} == {"orders/0/9"}
        assert said["to stderr"].stream == "stderr"
        assert (said["watch 7"].stream, said["watch 7"].level) == ("log", "WARNING")


async def test_children_draw_different_numbers(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import random, numpy
random.seed(1); numpy.random.seed(1)
@app.function(orders)
def price(events, context):
    print(random.random(), numpy.random.random())
    time.sleep(0.1)
""")
        await asyncio.gather(home.run("price"), home.run("price"), home.run("price"))
        assert await eventually(lambda: len(home.lines) == 3)
        draws = [line.split() for line in home.said()]
        assert len({draw[0] for draw in draws}) == 3
        assert len({draw[1] for draw in draws}) == 3


async def test_an_asynchronous_handler_keeps_its_loop_between_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import asyncio
@app.function(orders)
async def price(events, context):
    await asyncio.sleep(0.001)
    print(id(asyncio.get_running_loop()))
""")
        for _ in range(3):
            outcome = await home.run("price")
            assert isinstance(outcome, Returned)
            assert outcome.error is None
        assert await eventually(lambda: len(home.lines) == 3)
        assert len(set(home.said())) == 1


async def test_lazy_imports_work_under_another_uid(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context):
    import http.client, sqlite3, beside
    print(os.getuid(), beside.NAME)
""")
        outcome = await home.run("price")
        assert isinstance(outcome, Returned)
        assert outcome.error is None
        assert await eventually(lambda: len(home.lines) == 1)
        uid, name = home.said()[0].split()
        assert name == "beside"
        assert (int(uid) != os.getuid()) == (os.getuid() == 0)


async def test_an_app_that_cannot_be_imported_is_refused_with_its_traceback(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        with pytest.raises(Misuse, match=r"shop.py.*cannot be imported: ZeroDivisionError"):
            await home.deploy("1 / 0")
        with pytest.raises(Misuse, match="SystemExit"):
            await home.deploy("sys.exit(3)")
        with pytest.raises(Misuse, match="there is no file"):
            await home.fleet.deploy(str(tmp_path / "nowhere.py"))
        with pytest.raises(Unknown, match=r"shop\.price"):
            await home.run("price")


async def test_an_import_that_leaves_a_thread_or_a_socket_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        with pytest.raises(Misuse, match=r"thread.*@app\.init"):
            await home.deploy(
                "import threading; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
            )
        with pytest.raises(Misuse, match=r"socket.*@app\.init"):
            await home.deploy("import socket; kept = socket.socket()")


async def test_where_a_start_hook_fails_no_run_fails_and_other_functions_run(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.init(only=["price"])
def connect():
    if not (app.folder / "database").exists():
        raise ConnectionError("no database")
@app.function(orders)
def price(events, context):
    pass
@app.function(orders)
def other(events, context):
    pass
""")
        for _ in range(2):
            # The second time it is refused without a fork.
            with pytest.raises(Unavailable, match=r"`shop\.price`.*ConnectionError: no database"):
                await home.run("price")
        assert list(home.fleet.not_starting()) == ["shop.price"]
        failed = home.fleet.failed_start("shop.price")
        assert failed is not None
        assert failed.cause == "ConnectionError: no database (in the `init` hook `connect`)"
        assert not failed.running
        assert home.fleet.failed_start("shop.other") is None
        assert isinstance(await home.run("other"), Returned)
        assert await eventually(
            lambda: {each.function for each in home.fleet.instances()} == {"shop.other"}
        )
        assert any("no instance starts: ConnectionError" in each for each in home.said())
        (home.folder / "files" / "shop" / "database").touch()

        async def runs() -> bool:
            try:
                return isinstance(await home.run("price"), Returned)
            except Unavailable:
                await asyncio.sleep(0.02)
                return False

        async with asyncio.timeout(10):
            while not await runs():
                pass
        assert home.fleet.not_starting() == {}


async def test_the_same_affinity_finds_the_same_instance(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context):
    time.sleep(0.05)
""")

        async def run(affinity: str) -> str:
            outcome = await invoke(home.fleet.submit, invocation("shop.price", affinity=affinity))
            return outcome.usage.instance

        homes = await asyncio.gather(run("a"), run("b"), run("c"))
        assert len(set(homes)) == 3
        assert [await run("b"), await run("a"), await run("c")] == [homes[1], homes[0], homes[2]]


async def test_no_more_instances_than_allowed_and_the_rest_wait_their_turn(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders, scaling=Scaling(max=2))
def price(events, context):
    time.sleep(0.02)
""")
        outcomes = await asyncio.gather(*[home.run("price") for _ in range(12)])
        assert len({outcome.usage.instance for outcome in outcomes}) == 2


async def test_an_idle_instance_hibernates_and_is_revived_with_its_memory(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
seen = []
@app.on_suspend
def close(): print("suspended")
@app.on_resume
def reopen(): print("resumed")
@app.function(orders, scaling=Scaling(keep_warm=0.05))
def price(events, context):
    seen.append(1); print("seen", len(seen))
""")
        await home.run("price")

        def stopped() -> bool:
            (view,) = home.fleet.instances()
            stat = Path(f"/proc/{view.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            return view.state == "hibernating" and stat == "T"

        assert await eventually(stopped)
        outcome = await home.run("price")
        assert isinstance(outcome, Returned)
        assert not outcome.usage.cold
        assert await eventually(lambda: len(home.lines) == 4)
        assert home.said() == ["seen 1", "suspended", "resumed", "seen 2"]


async def test_a_long_hibernation_ends_in_eviction(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders, scaling=Scaling(keep_warm=0.05, keep_hibernating=0.2))
def price(events, context):
    pass
""")
        await home.run("price")
        assert await eventually(lambda: home.fleet.instances() == [])


async def test_an_instance_is_replaced_after_its_last_allowed_run(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders, scaling=Scaling(max_invocations=2))
def price(events, context):
    pass
""")
        used = [(await home.run("price")).usage.instance for _ in range(6)]
        assert used[0] == used[1] != used[2] == used[3] != used[4] == used[5]


async def test_when_the_fleet_is_full_an_idle_instance_makes_room(tmp_path: Path) -> None:
    async with house(tmp_path, limits=FleetLimits(instances=2)) as home:
        await home.deploy("""
@app.function(orders)
def one(events, context): pass
@app.function(orders)
def two(events, context): pass
@app.function(orders)
def three(events, context): pass
""")
        for name in ("one", "two", "three", "one"):
            assert isinstance(await home.run(name), Returned)
        assert await eventually(lambda: len(home.fleet.instances()) <= 2)


async def test_a_redeploy_switches_while_the_old_version_finishes(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context):
    time.sleep(1.5); print("old")
""")
        running = asyncio.ensure_future(home.run("price"))
        await CLOCK.sleep(0.1)
        target = home.write("""
@app.function(orders)
def price(events, context): print("new")
""")
        await home.fleet.deploy(target)
        await home.run("price")
        assert isinstance(await running, Returned)
        assert await eventually(lambda: len(home.lines) == 2)
        assert home.said() == ["new", "old"]
        assert await eventually(lambda: len(home.fleet.instances()) == 1)


async def test_a_broken_redeploy_leaves_the_old_version_at_work(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(PLAIN)
        with pytest.raises(Misuse):
            await home.fleet.deploy(home.write("oh no"))
        assert isinstance(await home.run("price"), Returned)


async def test_closing_waits_for_the_running_and_calls_the_stop_hooks(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.on_stop
def goodbye(): print("goodbye")
@app.function(orders)
def price(events, context):
    time.sleep(0.2); print("done")
""")
        running = asyncio.ensure_future(home.run("price"))
        await CLOCK.sleep(0.05)
        await home.fleet.close()
        assert isinstance(await running, Returned)
        assert home.said() == ["done", "goodbye"]


async def test_an_operators_kill_costs_nobody_an_attempt(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context): time.sleep(9)
""")
        running = asyncio.ensure_future(home.run("price", within=20))
        await eventually(lambda: bool(home.fleet.instances()))
        await home.fleet.kill(home.fleet.instances()[0].id)
        outcome = await running
        assert isinstance(outcome, Crashed)
        assert outcome.blameless


async def test_a_kill_from_outside_is_a_crash_and_the_next_run_is_served(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context): time.sleep(0.2)
""")
        running = asyncio.ensure_future(home.run("price"))
        await eventually(lambda: any(view.state == "busy" for view in home.fleet.instances()))
        os.kill(home.fleet.instances()[0].pid, signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, Crashed)
        assert "SIGKILL" in outcome.cause.message
        assert isinstance(await home.run("price"), Returned)


async def test_a_killed_zygote_takes_its_instances_along_and_comes_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context): time.sleep(0.3)
""")
        running = asyncio.ensure_future(home.run("price"))
        await eventually(lambda: any(view.state == "busy" for view in home.fleet.instances()))
        pid = home.fleet.instances()[0].pid
        zygote = parent_of(pid)
        os.kill(zygote, signal.SIGKILL)
        assert isinstance(await running, Returned)
        assert not lives(pid)
        assert not lives(zygote)
        assert isinstance(await home.run("price"), Returned)


async def test_a_dying_idle_instance_is_never_given_a_run(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(
            """
            @app.function(orders)
            def price(events, context):
                pass
            """
        )
        for _ in range(20):
            await home.run("price")
            [idle] = [view for view in home.fleet.instances() if view.state == "idle"]
            os.kill(idle.pid, signal.SIGKILL)
            # Another may be dying still, so this one is looked for by name.
            while (idle.id, "idle") in {(view.id, view.state) for view in home.fleet.instances()}:
                await CLOCK.sleep(0)
            assert isinstance(await home.run("price"), Returned)


async def test_a_zygote_that_hangs_is_replaced_and_what_waited_for_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.process.instance.START_TIMEOUT_S", 0.3)
    monkeypatch.setattr("headrace.runtime.process.instance.REAP_TIMEOUT_S", 0.3)
    async with house(tmp_path) as home:
        await home.deploy(PLAIN + "@app.function(orders)\ndef other(events, context): pass\n")
        await home.run("price")
        zygote = parent_of(home.fleet.instances()[0].pid)
        os.kill(zygote, signal.SIGSTOP)
        # When: what is warm dies, and what is cold is asked for; nobody reaps, nobody forks.
        os.kill(home.fleet.instances()[0].pid, signal.SIGKILL)
        warm, cold = await asyncio.wait_for(
            asyncio.gather(home.run("price"), home.run("other")), 10
        )
        assert isinstance(warm, Returned | Crashed)
        assert isinstance(cold, Returned)
        assert isinstance(await asyncio.wait_for(home.run("price"), 5), Returned)
        assert not lives(zygote)
        assert any("its zygote" in line for line in home.said())


async def test_a_kill_that_a_hung_zygote_does_not_report_is_a_crash_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.process.instance.REAP_TIMEOUT_S", 0.3)
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(events, context): time.sleep(9)
""")
        running = asyncio.ensure_future(home.run("price", within=20))
        await eventually(lambda: any(view.pid for view in home.fleet.instances()))
        pid = home.fleet.instances()[0].pid
        os.kill(parent_of(pid), signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        outcome = await running
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "Crashed"


async def test_an_instance_whose_stop_hook_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.process.instance.LEAVE_TIMEOUT_S", 0.3)
    async with house(tmp_path) as home:
        await home.deploy("""
@app.on_stop
def linger(): time.sleep(600)

@app.function(orders, scaling=Scaling(max=1, max_invocations=1))
def price(events, context): pass
""")
        assert isinstance(await home.run("price"), Returned)
        assert isinstance(await asyncio.wait_for(home.run("price"), 5), Returned)


async def test_a_resource_is_opened_after_the_fork_and_closed_at_the_end(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
from headrace import Scaling
@app.resource
def database():
    (app.folder / "open").write_text(str(os.getpid()))
    yield os.getpid()
    (app.folder / "closed").write_text(str(os.getpid()))
@app.function(orders, scaling=Scaling(max_invocations=2))
def price(events, context):
    assert database.value == os.getpid()
""")
        kept = home.folder / "files" / "shop"
        for _ in range(2):
            outcome = await home.run("price")
            assert isinstance(outcome, Returned)
            assert outcome.error is None
        assert await eventually((kept / "closed").exists)
        assert await eventually(
            lambda: (kept / "closed").read_text() == (kept / "open").read_text()
        )
