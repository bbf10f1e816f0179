"""Runs that wait behind others, in worlds whose instances, hosts and commits fail meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import Literal

import pytest

from headrace import App, Context, Event, Retry
from headrace.runtime.base import RECALLED
from headrace.runtime.inline_run import InlineRun
from headrace.testing.world import World

Order = Event[dict[str, int]]
EVENTS, KEYS = 200, 17
SEEDS = range(10)


def shop(kept: Literal["key", "none"], chance: random.Random) -> App:
    """Counts the orders of each key, takes its time, and fails now and then."""
    app = App("shop")
    orders, seen = app.stream("orders"), app.stream("seen")

    async def count(event: Order, context: Context) -> None:
        await asyncio.sleep(chance.choice((0.001, 0.004, 0.02)))
        before = context.state.get(f"count-{event.key}", type=int) or 0
        if chance.random() < 0.05:
            raise RuntimeError("not now")
        context.state.put(f"count-{event.key}", before + 1)
        context.publish(seen, {**event.value, "count": before + 1}, key=event.key)

    app.function(
        orders,
        order=kept,
        parallelism=4,
        batch_size=1,
        retry=Retry(attempts=30, initial_delay=0.01, jitter=False),
    )(count)
    return app


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What became of runs that were sent ahead."""
    found: Counter[str] = Counter()
    run = InlineRun._run

    async def counted(self: InlineRun) -> object:
        outcome = await run(self)
        if self._before is not None:
            found["taken back" if outcome is RECALLED else "ran"] += 1
        return outcome

    monkeypatch.setattr(InlineRun, "_run", counted)
    return found


def trouble(world: World, chance: random.Random) -> None:
    match chance.randrange(6):
        case 0:
            world.crash()
        case 1:
            at = ("pump:after-invoke", "commit:before-fsync", "commit:after-fsync")
            world.crash(chance.choice(at), passes=chance.randrange(1, 9))
        case 2:
            world.kill_instance("shop.count", times=chance.randrange(1, 4))
        case 3:
            world.timeout("shop.count")
        case 4:
            world.deliver_twice()
        case _:
            world.pause("shop.count")
            world.advance(0.05)
            world.resume("shop.count")


@pytest.mark.parametrize("kept", ["key", "none"])
def test_each_event_counts_once_and_keys_keep_their_order_whatever_fails(
    kept: Literal["key", "none"], behind: Counter[str]
) -> None:
    for seed in SEEDS:
        chance = random.Random(seed)
        with World(shop(kept, chance), seed=seed) as world:
            world.reorder()
            for n in range(EVENTS):
                world.publish("orders", {"n": n}, key=str(n % KEYS))
            for _ in range(6):
                world.advance(chance.choice((0.003, 0.02, 0.1)))
                trouble(world, chance)
            world.run_until_idle()
            of_key: defaultdict[str | None, list[dict[str, int]]] = defaultdict(list)
            for event in world.published("seen"):
                of_key[event.key].append(event.value)
            for key, found in of_key.items():
                assert [each["count"] for each in found] == list(range(1, len(found) + 1)), key
                order = [each["n"] for each in found]
                assert sorted(order) == list(range(int(key or 0), EVENTS, KEYS)), (seed, key)
                assert kept == "none" or order == sorted(order), (seed, key, order)
            assert len(of_key) == KEYS
            assert world.lag() == 0
    assert behind["ran"] > 100
    assert behind["taken back"] > 10
