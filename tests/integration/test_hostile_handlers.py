"""Handlers that mean harm: the instance dies, the host does not, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.runtime_fleets import (
    CLOCK,
    House,
    eventually,
    house,
    invocation,
    lives,
    parent_of,
)

from headrace.model.outcome import Crashed, Outcome, Returned, TimedOut
from headrace.runtime.base import invoke

LATE_S = 0.5
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to change uids")

GOOD = """
@app.function(orders)
def good(events, context): pass
"""


async def attack(home: House, code: str, *, within: float = 3.0) -> Outcome:
    """Run it; whatever came of it, the instance is gone soon and another function is served."""
    await home.deploy(GOOD + code)
    before = CLOCK.monotonic()
    outcome = await home.run("bad", within=within)
    assert CLOCK.monotonic() - before < within + LATE_S
    assert isinstance(await home.run("good"), Returned)
    return outcome


def gone(home: House) -> bool:
    return all(view.function != "shop.bad" for view in home.fleet.instances())


async def test_an_endless_loop_is_killed_on_time(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    while True: pass
""",
            within=0.3,
        )
        assert isinstance(outcome, TimedOut)
        assert gone(home)


@pytest.mark.parametrize("way", ["children", "strays", "thread"])
@pytest.mark.parametrize("isolation", [1, 2])
async def test_what_comes_of_a_handler_counts_as_its_memory(
    tmp_path: Path, isolation: int, way: str
) -> None:
    async with house(tmp_path, isolation=isolation) as home:
        await home.deploy(
            GOOD
            + f"""
import threading

def swell():
    kept = bytearray(60 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    time.sleep(60)
    os._exit(0)

def fork():
    child = os.fork()
    if child == 0:
        if {way!r} == "strays":
            os.setsid()
            if os.fork():
                os._exit(0)
        swell()

@app.function(orders, resources=Resources(memory=128 << 20, isolation={isolation}))
def bad(events, context):
    for _ in range(4):
        if {way!r} == "thread":
            threading.Thread(target=fork, daemon=True).start()
        else:
            fork()
    time.sleep(30)
"""
        )
        outcome = await home.run("bad", within=60.0)
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "OutOfMemory"
        assert "child processes" in outcome.cause.message
        assert gone(home)


async def test_children_that_stay_within_its_memory_are_let_be(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy(
            GOOD
            + """
@app.function(orders, resources=Resources(memory=256 << 20))
def bad(events, context):
    kept = bytearray(100 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    # Forks share what they do not write.
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            time.sleep(3)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
"""
        )
        outcome = await home.run("bad", within=60.0)
        assert isinstance(outcome, Returned)
        assert outcome.error is None


async def test_a_handler_that_asks_for_more_time_for_ever_is_killed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.process.instance.MAX_EXTENDED_S", 1.0)
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def bad(events, context):
    while True:
        context.extend(3_600)
        time.sleep(0.05)
""")
        outcome = await home.run("bad", within=0.5)
        assert isinstance(outcome, TimedOut)
        assert gone(home)


async def test_a_handler_that_ignores_signals_is_killed_on_time(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except OSError: pass
    while True:
        try: time.sleep(60)
        except BaseException: pass
""",
            within=0.3,
        )
        assert isinstance(outcome, TimedOut)
        assert gone(home)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os._exit(3)", "code 3"),
        ("os._exit(0)", "code 0"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    ],
)
async def test_a_handler_that_ends_its_process_is_a_crash(
    tmp_path: Path, code: str, message: str
) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            f"""
@app.function(orders)
def bad(events, context):
    {code}
""",
        )
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "Crashed"
        assert message in outcome.cause.message
        assert not outcome.blameless
        assert gone(home)


async def test_a_handler_that_is_stopped_is_killed_on_time(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context): os.kill(os.getpid(), signal.SIGSTOP)
""",
            within=0.3,
        )
        assert isinstance(outcome, TimedOut)
        assert gone(home)


async def test_a_memory_bomb_hits_its_limit_and_the_instance_is_replaced(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
hoard = []
@app.function(orders, resources=Resources(memory=64 << 20))
def bad(events, context):
    while True: hoard.append(bytearray(1 << 20))
""",
        )
        assert isinstance(outcome, Returned | Crashed)
        cause = outcome.error if isinstance(outcome, Returned) else outcome.cause
        assert cause is not None
        assert cause.kind in {"MemoryError", "OutOfMemory"}
        assert await eventually(lambda: gone(home))


@root
async def test_a_fork_bomb_is_bounded_and_nothing_of_it_survives(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders, resources=Resources(processes=32))
def bad(events, context):
    print(os.getuid())
    while True:
        try: os.fork()
        except OSError: pass
""",
            within=0.5,
        )
        assert isinstance(outcome, TimedOut)
        assert await eventually(lambda: bool(home.lines))
        uid = int(home.said()[0])
        assert await eventually(lambda: processes_of(uid) == [])


@root
async def test_a_daemonised_grandchild_dies_with_its_instance(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    print(os.getuid())
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(4, 64):
                try: os.close(fd)
                except OSError: pass
            time.sleep(600)
        os._exit(0)
    os.wait()
    os._exit(1)
""",
        )
        assert await eventually(lambda: bool(home.lines))
        uid = int(home.said()[0])
        assert await eventually(lambda: processes_of(uid) == [])


async def test_a_descriptor_bomb_hits_its_limit(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders, resources=Resources(files=64))
def bad(events, context):
    held = []
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
""",
        )
        assert isinstance(outcome, Returned)
        assert outcome.error is not None
        assert outcome.error.kind == "OSError"


async def test_a_file_bomb_hits_its_limit(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders, resources=Resources(file_size=1 << 20))
def bad(events, context):
    with open("big", "wb") as file:
        while True: file.write(bytes(1 << 20))
""",
        )
        assert isinstance(outcome, Returned | Crashed)


@pytest.mark.parametrize(
    "said",
    [
        # The head's length is beyond every limit; a smaller one would be half a frame.
        "os.urandom(3) + b'\\xff' + os.urandom(4092)",
        "b'\\xff' * 64",
        "struct.pack('<IIQ', 1 << 30, 0, 1)",
        "struct.pack('<IIQ', 0xffffffff, 0, 1) + bytes(100_000)",
        "frame(b'')",
        "frame(msgspec.msgpack.encode([2, [[]]]))",
        "frame(msgspec.msgpack.encode([99, 'no such message']))",
        "encode(12345, Done(Returned(result=b'forged')))",
        "encode(0, Hello(0.0))",
        "encode(77, Ask(1, ReadState(['secret'])))",
    ],
)
async def test_garbage_and_forgery_on_the_channel_cost_the_instance_its_life(
    tmp_path: Path, said: str
) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            f"""
import struct, zlib, msgspec
from headrace.runtime.protocol.messages import *
def frame(body): return struct.pack("<IIQ", len(body), zlib.crc32(body, 1), 1) + body
@app.function(orders)
def bad(events, context):
    os.write(3, {said})
    time.sleep(30)
""",
        )
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "ProtocolError"
        assert gone(home)


async def test_half_a_frame_and_silence_is_a_timeout(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    os.write(3, b"\\x10\\x00\\x00\\x00half")
    time.sleep(30)
""",
            within=0.3,
        )
        assert isinstance(outcome, TimedOut)


async def test_garbage_on_every_descriptor_harms_only_the_instance(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    for fd in range(0, 300):
        try: os.write(fd, os.urandom(1000) + b"\\x1e[1, 2\\n\\x1e" + b"[" * 5000 + b"\\n")
        except OSError: pass
    for fd in range(0, 300):
        try: os.close(fd)
        except OSError: pass
    time.sleep(30)
""",
        )
        assert isinstance(outcome, Crashed)
        assert outcome.cause.kind == "ProtocolError"
        assert gone(home)


async def test_a_flood_of_output_is_capped_and_told(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        outcome = await attack(
            home,
            """
@app.function(orders)
def bad(events, context):
    end = time.monotonic() + 0.5
    while time.monotonic() < end: os.write(1, b"spam\\n" * 10_000)
    os.write(1, b"x" * 1_000_000)
""",
        )
        assert isinstance(outcome, Returned)
        assert len(home.lines) < 30_000
        assert max(len(line.message) for line in home.lines) <= 8_192
        await home.fleet.close()
        assert any("lines were dropped" in message for message in home.said())


async def test_the_innocent_neighbours_in_one_instance_are_run_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
runs = 0
@app.function(orders, scaling=Scaling(max=1))
def price(events, context):
    if context.idempotency_key.startswith("poison"): os._exit(9)
""")
        for _ in range(200):
            await home.run("price")
        keys = [f"good-{number}" for number in range(12)]
        keys.insert(6, "poison")
        outcomes = await asyncio.gather(
            *[invoke(home.fleet.submit, invocation("shop.price", key=key)) for key in keys]
        )
        assert isinstance(outcomes[6], Crashed)
        assert all(isinstance(outcome, Returned) for outcome in outcomes[:6] + outcomes[7:])


HOST = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tests.integration.runtime_fleets import House
async def main():
    home = House(Path(sys.argv[1]))
    await home.deploy('''
@app.function(orders)
def price(events, context): time.sleep(60)
''')
    tasks = [asyncio.ensure_future(home.run("price", within=90)) for _ in range(3)]
    while sum(view.state == "busy" for view in home.fleet.instances()) < 3:
        await asyncio.sleep(0.01)
    print(*[view.pid for view in home.fleet.instances()], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_when_the_host_is_killed_every_process_of_its_is_gone_at_once(tmp_path: Path) -> None:
    program = HOST.format(tests=str(Path(__file__).parent))
    host = subprocess.Popen(  # noqa: ASYNC220 - it is killed below, and says one line
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert len(pids) == 3
    zygote = parent_of(pids[0])
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    assert await eventually(lambda: not any(lives(pid) for pid in [*pids, zygote]), within=1.0)


def processes_of(uid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid and lives(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
