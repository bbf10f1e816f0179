"""A whole node in a test: actions of an author, and the results that it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest

from headrace import App, Batch, Context, Event, Failures, ParkKey, ParkPartition, Retry
from headrace.errors import Misuse, Unavailable, Unknown
from headrace.testing import World
from headrace.testing.virtual_time import Livelock


def _shop(**options: Any) -> App:
    shop = App("shop", owner="team-orders")
    orders = shop.stream("orders", partitions=4)
    priced = shop.stream("priced")

    @shop.function(orders, batch_size=10, **({"retry": Retry(attempts=3)} | options))
    def price(events: Batch[Any], context: Context) -> None:
        for event in events:
            if event.value["n"] == 13:
                raise ValueError("unlucky")
            context.publish(priced, {"n": event.value["n"]}, key=event.key)
            context.state.update(f"count.{event.key}", lambda known: (known or 0) + 1)

    return shop


def _numbers(count: int) -> list[dict[str, int]]:
    return [{"n": number} for number in range(count)]


def _key(value: dict[str, int]) -> str:
    return f"k{value['n'] % 7}"


def _n(event: Event[Any]) -> int:
    number: int = event.value["n"]
    return number


def test_what_is_published_comes_out_once_and_in_order() -> None:
    with World(_shop()) as world:
        world.publish("orders", *_numbers(10), key=_key)
        world.run_until_idle()

        world.assert_exactly_once("priced", of="orders")
        world.assert_order("shop.price")
        world.assert_order("priced", by=_n)
        world.assert_nothing_lost()
        assert dict(world.state("shop.price").items("count.")) == {
            "count.k0": 2,
            "count.k1": 2,
            "count.k2": 2,
            "count.k3": 1,
            "count.k4": 1,
            "count.k5": 1,
            "count.k6": 1,
        }


def test_a_poison_event_becomes_a_dead_letter_and_the_others_flow_on() -> None:
    with World(_shop()) as world:
        world.publish("orders", *_numbers(40), key=_key)
        world.run_until_idle()

        (dead,) = world.dead_letters("shop.price")
        assert (dead.cause.kind, dead.cause.message, dead.attempts) == ("ValueError", "unlucky", 3)
        world.assert_exactly_once("priced", of=set(range(40)) - {13}, by=_n)
        world.assert_nothing_lost()


@pytest.mark.parametrize(
    "label",
    [
        "pump:after-read",
        "pump:before-invoke",
        "pump:after-invoke",
        "commit:before-write",
        "commit:after-fsync",
        "pump:after-commit",
        "dead-letter:before-commit",
        "claim:before-write",
        "claim:after-write",
        "recovery:claimed",
    ],
)
def test_a_crash_at_any_point_neither_loses_nor_doubles(label: str) -> None:
    with World(_shop(), seed=5) as world:
        world.pause("shop.price")
        world.publish("orders", *_numbers(40), key=_key)
        world.crash(at=label)
        if label.startswith(("claim", "recovery")):
            world.crash()
        else:
            world.resume("shop.price")
        world.run_until_idle()

        assert world.deaths[-1] == f"at {label}"
        world.assert_exactly_once("priced", of=set(range(40)) - {13}, by=_n)
        world.assert_order("shop.price")
        assert sum(world.state("shop.price").values()) == 39


def test_a_handler_that_ran_without_a_commit_runs_again() -> None:
    with World(_shop()) as world:
        world.deliver_twice()
        world.publish("orders", {"n": 1}, key="a")
        world.run_until_idle()

        assert [one.outcome for one in world.deliveries] == ["done", "done"]
        assert world.values("priced") == [{"n": 1}]
        assert world.state("shop.price")["count.a"] == 1


def test_planned_failures_are_retried_and_leave_no_trace() -> None:
    with World(_shop()) as world:
        world.fail("shop.price", times=2)
        world.publish("orders", {"n": 1}, key="a")
        world.run_until_idle()

        assert [one.attempt for one in world.deliveries] == [1, 2, 3]
        assert world.values("priced") == [{"n": 1}]
        assert not world.dead_letters()


def test_a_timeout_takes_its_time_and_then_a_retry() -> None:
    with World(_shop(timeout=7.0)) as world:
        world.timeout("shop.price")
        start = world.now
        world.publish("orders", {"n": 1}, key="a")
        world.run_until_idle()

        assert world.now - start >= timedelta(seconds=7)
        assert world.values("priced") == [{"n": 1}]


def test_an_instance_that_is_killed_is_replaced() -> None:
    with World(_shop()) as world:
        world.kill_instance("shop.price", times=2)
        world.publish("orders", *_numbers(5), key=_key)
        world.run_until_idle()

        world.assert_exactly_once("priced", of="orders")


def test_a_parked_key_does_not_hold_up_its_neighbours_and_comes_back_in_order() -> None:
    with World(_shop(on_failure=ParkKey())) as world:
        world.publish("orders", *_numbers(40), key=_key)
        world.run_until_idle()

        (parked,) = world.parked("shop.price")
        assert (parked.key, parked.status, parked.events) == ("k6", "waiting", 4)
        assert sorted(value["n"] for value in world.values("priced")) == [
            n for n in range(40) if n not in {13, 20, 27, 34}
        ]
        assert world.discard("shop.price", key="k6") == 1
        assert not world.parked()


def test_a_partition_that_stops_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with World(_shop(on_failure=ParkPartition())) as world:
        world.publish("orders", {"n": 13}, {"n": 14}, key="k")
        world.run_until_idle()
        assert [one.status for one in world.parked()] == ["partition"]
    [said] = [each for each in caplog.records if "partition parked" in each.getMessage()]
    assert said.levelname == "ERROR"
    assert said.getMessage() == (
        "`shop.price`: partition parked at orders/1/0 after 3 attempts: ValueError: 'unlucky' "
        "(headrace explain orders/1/0)"
    )


def test_a_stopped_partition_stays_stopped_over_a_crash() -> None:
    with World(_shop(on_failure=ParkPartition())) as world:
        world.publish("orders", {"n": 13}, {"n": 14}, key="k")
        world.run_until_idle()
        runs = len(world.deliveries)
        world.crash()
        world.advance("1d")

        assert len(world.deliveries) == runs
        assert [one.status for one in world.parked()] == ["partition"]
        assert world.lag() == 2


def test_redriving_runs_dead_letters_again() -> None:
    healed: list[bool] = []
    app = App("app")
    source = app.stream("in")

    @app.function(source, retry=Retry(attempts=1))
    def heal(event: Event[Any]) -> None:
        if not healed:
            raise ValueError("not yet")

    with World(app) as world:
        world.publish(source, 1, 2, 3, key="a")
        world.run_until_idle()
        assert len(world.dead_letters("app.heal")) == 3
        healed.append(True)

        assert world.redrive("app.heal") == 3
        world.run_until_idle()

        assert not world.dead_letters()
        assert [one.outcome for one in world.deliveries[-3:]] == ["done"] * 3


def test_partial_success_keeps_what_is_good() -> None:
    app = App("app")
    source, sink = app.stream("in"), app.stream("out")
    failed: list[int] = []

    @app.function(source)
    def sift(events: Batch[Any], context: Context) -> Failures:
        bad = [event for event in events if event.value % 3 == 0 and event.value not in failed]
        failed.extend(event.value for event in bad)
        for event in events:
            context.publish(sink, event.value)
        return Failures(bad)

    with World(app) as world:
        world.publish(source, *range(10))
        world.run_until_idle()
        world.assert_exactly_once(sink, of=range(10), by=lambda event: event.value)


def test_reordering_changes_who_goes_first_but_not_what_comes_out() -> None:
    orders: set[Any] = set()
    for seed in range(6):
        with World(_shop(), seed=seed) as world:
            world.reorder()
            world.publish("orders", *_numbers(12), key=_key)
            world.run_until_idle()
            world.assert_exactly_once("priced", of="orders")
            orders.add(tuple(one.position for one in world.deliveries))
    assert len(orders) > 1


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[Any]:
        with World(_shop(), seed=11) as world:
            world.fail("shop.price", times=3)
            world.publish("orders", *_numbers(20), key=_key)
            world.run_until_idle()
            return [*world.deliveries, world.now]

    assert run() == run()


def test_a_retry_three_days_away_is_reached_at_once() -> None:
    app = App("app")
    source = app.stream("in")
    tried: list[int] = []

    @app.function(
        source,
        retry=Retry(attempts=2, initial_delay=3 * 86_400.0, max_delay=3 * 86_400.0, jitter=False),
    )
    def slow(event: Event[Any]) -> None:
        tried.append(event.value)
        if len(tried) == 1:
            raise ValueError

    with World(app, start=datetime(2030, 1, 1, tzinfo=UTC)) as world:
        world.publish(source, 1)
        world.advance("2d23h")
        assert len(tried) == 1
        world.advance("1h")
        assert len(tried) == 2
        assert world.now == datetime(2030, 1, 4, tzinfo=UTC)


def test_a_producer_whose_host_died_does_not_know_and_says_it_again() -> None:
    with World(_shop()) as world:
        world.crash(at="commit:after-fsync")
        with pytest.raises(Unavailable, match="publish them again with ids"):
            world.publish("orders", {"n": 1}, key="a", id="one")
        assert world.publish("orders", {"n": 1}, key="a", id="one") == [None]
        world.run_until_idle()
        assert world.values("priced") == [{"n": 1}]


def test_an_idle_node_does_nothing() -> None:
    with World(_shop()) as world:
        world.publish("orders", *_numbers(10), key=_key)
        world.run_until_idle()
        before = world._lives.loop._steps
        world.advance("30d")
        assert world._lives.loop._steps - before < 20


def test_a_repeated_publish_under_the_same_id_is_dropped() -> None:
    with World(_shop()) as world:
        first = world.publish("orders", {"n": 1}, key="a", id="one")
        again = world.publish("orders", {"n": 1}, key="a", id="one")
        world.run_until_idle()

        assert first != [None]
        assert again == [None]
        assert world.values("priced") == [{"n": 1}]


def test_a_broken_promise_names_the_seed() -> None:
    with World(_shop(), seed=77) as world:
        world.publish("orders", {"n": 1}, {"n": 1}, key="a")
        world.run_until_idle()
        with pytest.raises(AssertionError, match=r"doubled: \('a', b'.*2 times\n.*") as caught:
            world.assert_exactly_once("priced")
        assert "seed=77" in str(caught.value)
        with pytest.raises(AssertionError, match="lost: 2"):
            world.assert_exactly_once("priced", of=[2], by=_n)


def test_a_world_that_never_rests_says_so() -> None:
    app = App("app")
    source = app.stream("in")

    @app.function(source, retry=Retry(attempts=10_000, initial_delay=1.0, max_delay=1.0))
    def never(event: Event[Any]) -> None:
        raise ValueError

    with World(app) as world:
        world.publish(source, 1)
        with pytest.raises(Livelock, match="still busy after 60s"):
            world.run_until_idle("60s")


def test_mistakes_of_use_are_named() -> None:
    with pytest.raises(Misuse, match="needs an app"):
        World()
    with pytest.raises(Misuse, match="with World"):
        World(_shop()).advance(1)
    shop = _shop()
    with World(shop) as world:
        with pytest.raises(Misuse, match="write seconds, a text"):
            world.advance("soon")
        with pytest.raises(Misuse, match="names one event"):
            world.publish("orders", 1, 2, id="x")
        with pytest.raises(Unknown, match=r"did you mean `shop\.price`"):
            world.state("shop.prices")
        for app in ("shop", shop):
            with pytest.raises(Unknown, match=r"world\.state\(handler\)"):
                world.state(app)  # type: ignore[arg-type]  # that is the test
        with pytest.raises(Unknown, match="is not a store of an app of this world"):
            world.store(App("other").store("totals"))
        with pytest.raises(KeyError):
            world.state("shop.price")["nothing"]


def test_the_map_shows_function_trigger_and_policies() -> None:
    with World(_shop()) as world:
        assert "shop.price" in world.map()
        assert "team-orders" in world.map()


def test_the_fixture_gives_worlds_with_the_seed_of_the_run(
    world: Callable[..., World], headrace_seed: int
) -> None:
    with world(_shop()) as found:
        assert found.seed == headrace_seed


def test_a_task_that_exits_is_the_cause_of_its_handlers_failure() -> None:
    shop = App("shop")
    orders, done = shop.stream("orders"), shop.stream("done")

    @shop.function(orders, retry=Retry(attempts=5, give_up_on=(SystemExit, asyncio.CancelledError)))
    async def price(event: Event[int], context: Context) -> None:
        async def work() -> None:
            raise SystemExit("no licence")

        if event.value == 1:
            await asyncio.gather(work())
        if event.value == 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        context.publish(done, event.value)

    with World(shop) as world:
        world.publish("orders", 0, 1, 2, 3)
        world.run_until_idle()
        dead = {(each.cause.kind, each.attempts) for each in world.dead_letters()}
        assert dead == {("SystemExit", 1), ("CancelledError", 1)}
        assert sorted(world.values("done")) == [0, 3]


def test_nothing_of_an_event_that_always_fails_is_kept_at_any_attempt() -> None:
    shop = App("shop")
    orders, done = shop.stream("orders"), shop.stream("done")

    @shop.function(orders, batch_size=10, retry=Retry(attempts=3, initial_delay=0.1))
    def price(events: Batch[int], context: Context) -> Failures:
        bad = []
        for event in sorted(events, key=lambda event: -event.value):
            context.publish(done, event.value)
            context.state.update("count", lambda seen: seen + 1, default=0)
            if event.value == 1:
                bad.append(event)
        return Failures(bad)

    with World(shop) as world:
        world.publish("orders", 0, 1, 2)
        world.run_until_idle()
        assert sorted(world.values("done")) == [0, 2]
        assert world.state("shop.price")["count"] == 2
        assert len(world.dead_letters()) == 1


def test_the_map_of_a_world_has_what_its_code_says_and_what_was_observed() -> None:
    app = App("mapped")
    ins, said, chosen = (app.stream(f"mapped.{name}") for name in ("ins", "said", "chosen"))
    by_name = {"chosen": chosen}

    @app.function(ins)
    def report(event: Event[str], context: Context) -> None:
        context.publish(said, 1)
        context.publish(by_name[event.value], 1)

    with World(app) as world:
        assert "mapped.said (in code)" in world.map()
        assert "(observed)" not in world.map()
        world.publish(ins, "chosen")
        world.run_until_idle()
        assert "mapped.said (in code), mapped.chosen (observed)" in world.map()


def test_a_function_is_named_by_its_handler_and_nobody_by_a_name_that_nobody_has() -> None:
    shop = App("shop")
    orders = shop.stream("orders")

    @shop.function(orders, retry=Retry(attempts=3, retry_on=ConnectionError, jitter=False))
    def price(event: Event[Any], context: Context) -> None: ...

    def stranger(event: Event[Any]) -> None: ...

    with World(shop) as world:
        world.fail(price, ConnectionRefusedError("down"), times=2)
        world.publish(orders, 1)
        world.run_until_idle()
        assert [each.outcome for each in world.deliveries][-1] == "done"
        assert world.dead_letters(price) == []
        assert world.parked(price) == []
        world.fail(price, ValueError("odd"))
        world.publish(orders, 2)
        world.run_until_idle()
        # It is not among `retry_on`, so it is given up at the first attempt.
        (letter,) = world.dead_letters("shop.price")
        assert (letter.cause.kind, letter.cause.message) == ("ValueError", "odd")
        assert world.redrive(price) == 1
        for look in (world.dead_letters, world.parked, world.lag, world.left_out, world.pause):
            with pytest.raises(Unknown, match=r"did you mean `shop.price`"):
                look("shop.prise")
            with pytest.raises(Unknown, match="`stranger` is not a function of this world"):
                look(stranger)
        for check in (world.published, world.assert_order, world.assert_exactly_once):
            with pytest.raises(Unknown, match=r"there is no stream `shop\.prise`"):
                check("shop.prise")
        with pytest.raises(Unknown, match="orderz"):
            world.cancel("orderz", "an id")
        with pytest.raises(Misuse, match=r"what the handler is to raise.*`times=`"):
            world.fail(price, cast("BaseException", 2))
        with pytest.raises(Misuse, match="at least 1, not 0"):
            world.fail(price, ValueError("odd"), times=0)
        world.assert_order(price)


def test_a_world_sends_specs_as_a_node_does() -> None:
    """A spec that cannot go from the process which imports an app to the node fails in a test too."""
    shop = App("shop")
    orders = shop.stream("orders")

    @shop.function(orders)
    def price(event: Event[Any]) -> None: ...

    declared = shop.functions["shop.price"]
    declared.spec = msgspec.structs.replace(declared.spec, parallelism=cast("int", "four"))
    with pytest.raises(msgspec.ValidationError, match="parallelism"), World(shop):
        pass
