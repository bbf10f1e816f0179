"""Handlers with threads, tasks and alarms, in real instances: each gets the answer to its own question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.runtime_fleets import CLOCK, House, Services, eventually, house

from headrace.model.codec import encode_state
from headrace.model.outcome import Returned
from headrace.model.record import decode_events
from headrace.model.stores import StoreAddress


def published(returned: Returned) -> list[Any]:
    return [
        msgspec.json.decode(fact.value)
        for append in returned.appends
        for fact in decode_events(append.body)
    ]


def has_said(home: House, what: str) -> bool:
    return any(what in line for line in home.said())


async def test_threads_read_their_own_keys(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
from concurrent.futures import ThreadPoolExecutor
@app.function(orders)
def f(events, context):
    def one(number):
        context.extend(60 + number)
        scanned = dict(context.state.items(f"k{number}/"))
        return context.state.get(f"k{number}"), scanned, context.state.get_many([f"k{number}", "none"])
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(one, range(200))):
            if found != (number, {f"k{number}/s": number}, {f"k{number}": number}):
                context.publish(priced, [number, found])
""")
        for number in range(200):
            home.services.rows[f"k{number}"] = (1, encode_state(number))
            home.services.rows[f"k{number}/s"] = (1, encode_state(number))
        for _ in range(3):
            returned = await home.run("f", within=20)
            assert isinstance(returned, Returned), returned
            assert (returned.error, published(returned)) == (None, [])


class Slow(Services):
    """Answers what is asked about `slow` when nobody waits for it any more."""

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        if keys == ["slow"]:
            await CLOCK.sleep(0.6)
        return await super().read_state(store, keys)


async def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_the_next_one(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, services=Slow()) as home:
        await home.deploy("""
class Late(Exception): pass
def ring(*_): raise Late
@app.function(orders)
def f(events, context):
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try: context.state.get("slow")
    except Late: pass
    context.publish(priced, [context.state.get("fast"), context.state.get("other")])
""")
        for key in ("slow", "fast", "other"):
            home.services.rows[key] = (1, encode_state(key))
        returned = await home.run("f")
        assert isinstance(returned, Returned), returned
        assert (returned.error, published(returned)) == (None, [["fast", "other"]])


async def test_what_threads_and_tasks_do_after_the_run_is_refused_and_harms_no_other_run(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import asyncio, threading
@app.function(orders)
def threaded(events, context):
    def straggle():
        time.sleep(0.05)
        for act in (lambda: context.publish(priced, "late"), lambda: context.state.get("k")):
            try: act()
            except Exception: pass
    threading.Thread(target=straggle).start()
    context.publish(priced, "in time")

@app.function(orders)
async def tasked(events, context):
    async def straggle():
        # Until a later run is under way: between runs the loop stands still.
        while kept[-1] is asyncio.current_task(): await asyncio.sleep(0.001)
        context.publish(priced, "late")
    kept.append(asyncio.create_task(straggle()))
    await asyncio.sleep(0 if len(kept) == 1 else 0.02)
    context.publish(priced, "in time")
kept = []
""")
        for name in ("threaded", "tasked"):
            for _ in range(3):
                returned = await home.run(name)
                assert isinstance(returned, Returned), returned
                assert published(returned) == ["in time"]
            told = f"publishing to `priced` came after the run of `shop.{name}` had ended"
            assert await eventually(partial(has_said, home, told))


@pytest.mark.parametrize("ending", ["sys.exit('no licence')", "raise KeyboardInterrupt"])
async def test_what_a_task_of_an_asynchronous_handler_raises_is_its_cause(
    tmp_path: Path, ending: str
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(f"""
import asyncio
from headrace import Event
@app.function(orders)
async def f(event: Event, context):
    async def work():
        {ending}
    if event.key == "key-1": await asyncio.gather(work())
    if event.key == "key-2": await asyncio.create_task(work())
    context.publish(priced, event.key)
""")
        returned = await home.run("f", events=2)
        assert isinstance(returned, Returned), returned
        (failure,) = returned.failures
        assert failure.index == 1
        assert failure.cause.kind in ("SystemExit", "KeyboardInterrupt")
        assert "in work" in failure.cause.traceback
        assert published(returned) == ["key-0"]
        assert len(home.fleet.instances()) == 1


async def test_a_handler_that_cancels_itself_is_told_with_its_cause(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
import asyncio
@app.function(orders)
async def f(events, context):
    asyncio.current_task().cancel()
""")
        returned = await home.run("f")
        assert isinstance(returned, Returned), returned
        assert returned.error is not None
        assert returned.error.kind == "CancelledError"
