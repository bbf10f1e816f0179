"""Flow control on the whole engine, on virtual time: what waits, what is left out, what a crash keeps."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from headrace import (
    App,
    Batch,
    Concurrency,
    Context,
    Debounce,
    Event,
    Priority,
    Retry,
    Sample,
    Singleton,
    Stream,
    Throttle,
)
from headrace.errors import Misuse
from headrace.model.effects import Space
from headrace.storage.kv.keys import pack
from headrace.testing.hosts import at_once
from headrace.testing.world import World


def shop() -> tuple[App, Stream[Any], Stream[Any]]:
    app = App("shop")
    return app, app.stream("orders"), app.stream("seen")


def seen(world: World) -> list[int]:
    return [event.value["n"] for event in world.published("seen")]


def left_out(world: World) -> dict[str, int]:
    return dict(world.left_out("shop.handle"))


def test_a_debounced_key_runs_its_last_event_once_it_is_quiet() -> None:
    app, orders, output = shop()

    @app.function(orders, debounce=Debounce(5), parallelism=4)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value, key=event.key)

    with World(app) as world:
        for n in range(4):
            world.publish("orders", {"n": n}, key="ada")
            world.advance(2)
        world.publish("orders", {"n": 10}, key="bob")
        world.advance(2)
        assert seen(world) == []
        world.crash()
        world.advance(2)
        assert seen(world) == [3]
        world.run_until_idle()
        assert seen(world) == [3, 10]
        assert world.lag() == 0


def test_what_debounce_leaves_out_is_counted() -> None:
    app, orders, output = shop()

    @app.function(orders, debounce=Debounce(5))
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(5):
            world.publish("orders", {"n": n}, key="ada")
        world.run_until_idle()
        assert seen(world) == [4]
        assert left_out(world) == {"debounce": 4}


def test_a_debounced_key_that_is_never_quiet_goes_after_its_longest_time() -> None:
    app, orders, output = shop()

    @app.function(orders, debounce=Debounce(5, longest=8))
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(12):
            world.publish("orders", {"n": n}, key="ada")
            world.advance(1)
        assert seen(world)[0] in {7, 8}
        world.run_until_idle()
        assert seen(world)[-1] == 11


def test_a_throttled_function_never_begins_more_often_even_across_a_crash() -> None:
    app, orders, output = shop()
    begun: list[float] = []

    @app.function(orders, throttle=Throttle(1, per=10), batch_size=1)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        begun.append(context.now().timestamp())
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(4):
            world.publish("orders", {"n": n}, key="ada")
        world.advance(11)
        world.crash()
        world.run_until_idle()
        assert seen(world) == [0, 1, 2, 3]
    assert all(later - earlier >= 9.99 for earlier, later in itertools.pairwise(begun))


def test_a_throttle_per_key_holds_up_no_other_key() -> None:
    app, orders, output = shop()

    @app.function(orders, throttle=Throttle(1, per=60, per_key=True), batch_size=1)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(3):
            world.publish("orders", {"n": n}, key="ada")
            world.publish("orders", {"n": 10 + n}, key=f"k{n}")
        world.advance(1)
        assert sorted(seen(world)) == [0, 10, 11, 12]
        world.run_until_idle()
        assert [n for n in seen(world) if n < 10] == [0, 1, 2]


def test_a_rate_leaves_out_what_exceeds_it_and_judges_a_backlog_by_its_own_times() -> None:
    app, orders, output = shop()

    @app.function(orders, sample=Sample(2, per=60), batch_size=1)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        world.pause("shop.handle")
        for n in range(5):
            world.publish("orders", {"n": n}, key="ada")
        world.advance(61)
        world.publish("orders", {"n": 5}, key="ada")
        world.publish("orders", {"n": 6}, key="bob")
        world.crash()
        world.resume("shop.handle")
        world.run_until_idle()
        assert seen(world) == [0, 1, 5, 6]
        assert left_out(world) == {"sample": 3}
        assert world.lag() == 0


def test_what_a_rate_let_pass_is_run_after_a_crash_too() -> None:
    app, orders, output = shop()
    crashes = {"left": 1}

    @app.function(orders, sample=Sample(1, per=3600), batch_size=1, retry=Retry(attempts=3))
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        if event.value["n"] == 0 and crashes["left"]:
            crashes["left"] -= 1
            raise RuntimeError("once")
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(3):
            world.publish("orders", {"n": n}, key="ada")
        world.advance(0.01)
        world.crash()
        world.run_until_idle()
        assert seen(world) == [0]


def test_a_singleton_leaves_out_what_comes_while_its_key_runs() -> None:
    app, orders, output = shop()

    @app.function(orders, singleton=Singleton("skip"), parallelism=4)
    async def handle(event: Event[dict[str, int]], context: Context) -> None:
        await asyncio.sleep(5)
        context.publish(output, event.value)

    with World(app) as world:
        world.publish("orders", {"n": 0}, key="ada")
        world.advance(1)
        world.publish("orders", {"n": 1}, key="ada")
        world.publish("orders", {"n": 2}, key="bob")
        world.run_until_idle()
        world.publish("orders", {"n": 3}, key="ada")
        world.run_until_idle()
        assert seen(world) == [0, 2, 3]
        assert left_out(world) == {"singleton": 1}


def test_concurrency_holds_over_partitions_and_per_key() -> None:
    app = App("shop")
    orders = app.stream("orders", partitions=3)
    running: list[str | None] = []
    most = {"all": 0, "key": 0}

    @app.function(
        orders,
        order="none",
        parallelism=8,
        batch_size=1,
        concurrency=Concurrency(4, key_limit=2),
    )
    async def handle(event: Event[dict[str, int]]) -> None:
        running.append(event.key)
        most["all"] = max(most["all"], len(running))
        most["key"] = max(most["key"], running.count(event.key))
        await asyncio.sleep(1)
        running.remove(event.key)

    with World(app) as world:
        for n in range(40):
            world.publish("orders", {"n": n}, key=f"k{n % 3}")
        world.run_until_idle()
        assert world.lag() == 0
    assert most == {"all": 4, "key": 2}


def test_a_batch_per_key_holds_one_key_and_waits_for_its_own_window() -> None:
    app, orders, _ = shop()
    batches: list[list[str | None]] = []

    @app.function(orders, batch_per_key=True, batch_size=3, batch_window=10)
    def handle(events: Batch[dict[str, int]]) -> None:
        batches.append([event.key for event in events])

    with World(app) as world:
        for n in range(4):
            world.publish("orders", {"n": n}, key="ada")
            world.publish("orders", {"n": n}, key=f"k{n % 2}")
        world.advance(1)
        assert batches == [["ada"] * 3]
        world.run_until_idle()
    assert sorted(batches[1:]) == [["ada"], ["k0", "k0"], ["k1", "k1"]]


def test_a_higher_priority_goes_ahead_and_a_key_keeps_its_order() -> None:
    app, orders, output = shop()

    @app.function(orders, priority=Priority(), batch_size=1)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        world.pause("shop.handle")
        for n, ahead in enumerate((0, 0, 60, -60, 30)):
            world.publish(
                "orders", {"n": n}, key=f"k{n % 4}", headers={"headrace-priority": str(ahead)}
            )
        world.resume("shop.handle")
        world.run_until_idle()
        # 4 goes when 0, which has its key, has landed; until then the next of the others does.
        assert seen(world) == [2, 0, 1, 4, 3]


def test_flow_control_per_key_is_refused_where_the_partition_is_one_line() -> None:
    app, orders, _ = shop()
    with pytest.raises(Misuse, match=r"debounce=.*order per key"):

        @app.function(orders, debounce=Debounce(1), order="partition")
        def handle(event: Event[dict[str, int]]) -> None: ...


def test_a_debounced_backlog_is_read_before_anything_of_it_runs() -> None:
    app, orders, output = shop()

    @app.function(orders, debounce=Debounce(5), batch_size=1)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        world.pause("shop.handle")
        for n in range(0, 2_000, 100):
            world.publish("orders", *({"n": n + k} for k in range(100)), key="ada")
        world.advance(60)
        world.resume("shop.handle")
        world.run_until_idle()
        assert seen(world) == [1_999]
        assert left_out(world) == {"debounce": 1_999}


@pytest.mark.parametrize("crashes", [(30,), (5, 25, 45), tuple(range(3, 60, 7))], ids=str)
def test_the_longest_wait_of_a_debounced_key_holds_over_crashes(crashes: tuple[int, ...]) -> None:
    app, orders, output = shop()

    @app.function(orders, debounce=Debounce(10, longest=60))
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        for n in range(130):
            world.publish("orders", {"n": n}, key="k")
            world.advance("1s")
            if n in crashes:
                world.crash()
        # And the next wait is one of its own.
        assert seen(world) == [59, 119]
        world.advance("1m")
        assert seen(world) == [59, 119, 129]
        rows = at_once(world._lives.storage.scan(Space.META, b"", b"\xff", limit=100))
        assert not [key for key, _ in rows if key.startswith(pack("debounce"))]


@pytest.mark.parametrize("more", [{}, {"order": "key"}, {"batch_per_key": True}], ids=str)
def test_a_window_of_a_batch_ends_in_time_over_crashes(more: dict[str, Any]) -> None:
    app, orders, output = shop()

    @app.function(orders, batch_size=10, batch_window=10, output=None, **more)
    def handle(events: Batch[dict[str, int]], context: Context) -> None:
        for event in events:
            context.publish(output, event.value)

    with World(app) as world:
        world.publish("orders", {"n": 1}, key="k")
        for _ in range(2):
            world.advance("4s")
            world.crash()
        world.advance("1s")
        assert seen(world) == []
        world.advance("2s")
        assert seen(world) == [1]


@pytest.mark.parametrize(
    "option",
    [
        {"sample": Sample(1, per=30.0)},
        {"throttle": Throttle(1, per=30.0, per_key=True)},
        {"debounce": Debounce(30, longest=60)},
        {"singleton": Singleton("skip")},
    ],
    ids=lambda option: next(iter(option)),
)
@pytest.mark.parametrize("crashes", [False, True])
def test_nothing_is_kept_of_keys_that_are_long_quiet(option: dict[str, Any], crashes: bool) -> None:
    app, orders, output = shop()

    @app.function(orders, output=None, **option)
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value, key=event.key)

    def kept(world: World) -> int:
        return len(at_once(world._lives.storage.scan(Space.META, b"", b"\xff", limit=10_000)))

    with World(app) as world:
        before = kept(world)
        for n in range(40):
            world.publish("orders", {"n": n}, {"n": n + 1_000}, key=f"k{n}")
        world.advance("5s")
        if not isinstance(option.get("singleton"), Singleton):
            assert kept(world) - before >= 40
        if crashes:
            world.crash()
            world.advance("40s")
            world.crash()
        world.advance("1h")
        # Where a rate has judged everything until then stays known.
        assert kept(world) - before <= 1


def test_a_row_that_still_says_something_stays() -> None:
    app, orders, output = shop()

    @app.function(orders, sample=Sample(1, per=3_600))
    def handle(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(output, event.value)

    with World(app) as world:
        world.publish("orders", {"n": 1}, key="k")
        world.advance("30m")
        world.crash()
        world.publish("orders", {"n": 2}, key="k")
        world.advance("31m")
        world.publish("orders", {"n": 3}, key="k")
        world.run_until_idle()
        assert seen(world) == [1, 3]
