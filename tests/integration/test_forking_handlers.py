"""The author's code forks: only the process that was born as the instance answers, logs and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.runtime_fleets import eventually, house

from headrace.model.outcome import Returned
from headrace.model.record import decode_events

FUNCTIONS = """
from headrace import Batch, Event
def fork(ends="returns"):
    pid = os.fork()
    if pid == 0:
        if ends == "raises":
            raise ValueError("the child's own")
        if ends == "exits":
            sys.exit(3)
        return True
    if ends != "returns":
        _, status = os.waitpid(pid, 0)
        print("ended with", os.waitstatus_to_exitcode(status))
    else:
        time.sleep(0.2)
    return False
"""

HANDLERS = {
    "batch": """
@app.function(orders)
def f(events: Batch, context):
    print("ran")
    if fork({ends!r}): return
    for event in events: context.publish(priced, "parent")
""",
    "single": """
@app.function(orders)
def f(event: Event, context):
    print("ran")
    if fork({ends!r}): return
    context.publish(priced, "parent")
""",
    "returned": """
@app.function(orders, output=priced)
def f(event: Event):
    print("ran")
    return "child" if fork({ends!r}) else "parent"
""",
    "generator": """
@app.function(orders, output=priced)
def f(event: Event):
    print("ran")
    yield "child" if fork({ends!r}) else "parent"
""",
    "async": """
@app.function(orders, output=priced)
async def f(event: Event):
    print("ran")
    return "child" if fork({ends!r}) else "parent"
""",
    "async generator": """
@app.function(orders, output=priced)
async def f(event: Event):
    print("ran")
    yield "child" if fork({ends!r}) else "parent"
""",
    "init": """
@app.init
def begin():
    fork({ends!r})

@app.function(orders)
def f(event: Event, context):
    print("ran")
    context.publish(priced, "parent")
""",
}


def published(returned: Returned) -> list[Any]:
    return [
        msgspec.json.decode(fact.value)
        for append in returned.appends
        for fact in decode_events(append.body)
    ]


@pytest.mark.parametrize("form", HANDLERS)
@pytest.mark.parametrize("ends", ["returns", "raises", "exits"])
async def test_a_forked_child_does_not_answer_for_its_parent(
    tmp_path: Path, form: str, ends: str
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(FUNCTIONS + HANDLERS[form].format(ends=ends))
        returned = await home.run("f", events=3)
        assert isinstance(returned, Returned), returned
        assert (returned.error, returned.failures) == (None, ())
        assert published(returned) == ["parent"] * 3
        # It answers on: nothing was left in its channel that is not its own.
        assert isinstance(await home.run("f"), Returned)
        runs = 2 if form == "batch" else 4
        assert await eventually(lambda: home.said().count("ran") == runs)
        said = {"raises": "ended with 1", "exits": "ended with 3"}.get(ends)
        assert said is None or await eventually(lambda: said in home.said())
        if ends == "raises":
            assert await eventually(lambda: "ValueError: the child's own" in home.said())


async def test_a_fork_that_python_does_not_see_does_not_answer_either(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import ctypes
@app.function(orders)
def f(event, context):
    pid = ctypes.CDLL(None).fork()
    if pid == 0: return
    os.waitpid(pid, 0)
    context.publish(priced, "parent")
""")
        for _ in range(2):
            returned = await home.run("f")
            assert isinstance(returned, Returned)
            assert published(returned) == ["parent"]


async def test_what_a_forked_child_asks_for_is_refused_there(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def f(events, context):
    context.state.put("k", 1)
    print("begun ", end="")
    pid = os.fork()
    if pid == 0:
        for ask in (
            lambda: context.publish(priced, "child"), lambda: context.state.get("k"),
            lambda: context.extend(3600), lambda: context.state.update("k", str),
        ):
            try: ask()
            except Exception as error: print(error)
        os._exit(0)
    os.waitpid(pid, 0)
    print("and ended")
    context.publish(priced, context.state.get("k"))
""")
        returned = await home.run("f")
        assert isinstance(returned, Returned)
        assert published(returned) == [1]
        assert await eventually(lambda: "begun and ended" in home.said())
        refused = [line for line in home.said() if "in a process that the handler forked" in line]
        assert [line.split(" was asked")[0] for line in refused] == [
            "publishing to `priced`",
            "reading state `k`",
            "`context.extend`",
            "changing state `k`",
        ]


async def test_a_change_of_state_that_forks_is_noted_by_the_handlers_process_alone(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
def forking(number):
    pid = os.fork()
    if pid: os.waitpid(pid, 0)
    return number + 1 if pid else 100

@app.function(orders)
def f(events, context):
    born = os.getpid()
    try: context.state.update("k", forking, default=0)
    except Exception as error: print(error)
    if os.getpid() != born: os._exit(0)
    context.publish(priced, context.state.get("k"))
""")
        returned = await home.run("f")
        assert isinstance(returned, Returned)
        assert published(returned) == [1]
        assert await eventually(lambda: any("changing state `k`" in line for line in home.said()))


async def test_processes_of_multiprocessing_work(tmp_path: Path) -> None:
    async with house(tmp_path, isolation=0) as home:
        await home.deploy("""
import multiprocessing
def square(number): return number * number
@app.function(orders)
def f(events, context):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for squared in pool.map(square, range(4)): context.publish(priced, squared)
""")
        returned = await home.run("f")
        assert isinstance(returned, Returned)
        assert sorted(published(returned)) == [0, 1, 4, 9]


@pytest.mark.parametrize("ends", ["pass", "sys.exit(0)", "raise ValueError('the import')"])
async def test_a_child_that_is_forked_while_the_app_is_imported_is_not_a_zygote(
    tmp_path: Path, ends: str
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(f"""
pid = os.fork()
if pid == 0:
    {ends}
else:
    os.waitpid(pid, 0)
@app.function(orders)
def f(events, context): context.publish(priced, 1)
""")
        for _ in range(3):
            returned = await home.run("f")
            assert isinstance(returned, Returned)
            assert published(returned) == [1]
