"""Queues on the whole engine, on virtual time: leases, delays, order per group, dead letters, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from headrace import App, Context, Event, Queue
from headrace.delivery.queues.external_consumers import LeasedMessage
from headrace.model.errors import Unavailable
from headrace.testing.faults import Fault
from headrace.testing.world import World


def shop(**settings: Any) -> tuple[App, Queue[Any]]:
    app = App("shop")
    return app, app.queue("jobs", **settings)


def numbers(messages: list[LeasedMessage]) -> list[int]:
    return [json.loads(message.event.value)["n"] for message in messages]


def send(world: World, *ns: int, key: str | None = None, **headers: str) -> None:
    for n in ns:
        world.publish(
            "jobs",
            {"n": n},
            key=key,
            headers={f"headrace-{name}": said for name, said in headers.items()},
        )


def test_messages_are_acknowledged_one_by_one_in_any_order() -> None:
    app, jobs = shop()
    with World(app) as world:
        send(world, 0, 1, 2)
        consumer = world.consumer(jobs)
        messages = consumer.receive()
        assert numbers(messages) == [0, 1, 2]
        assert consumer.receive() == []
        assert consumer.acknowledge(messages[2])
        assert consumer.acknowledge(messages[0])
        world.advance(1)
        assert world.lag() == 1
        world.advance(30)
        again = consumer.receive()
        assert (numbers(again), again[0].attempt) == ([1], 2)
        assert not consumer.acknowledge(messages[1])
        assert consumer.acknowledge(again[0])
        world.run_until_idle()
        assert world.lag() == 0


def test_a_lease_outlives_a_crash_and_its_receipt_stays_good() -> None:
    app, jobs = shop()
    with World(app) as world:
        send(world, 0, 1)
        world.advance(1)
        consumer = world.consumer(jobs)
        first, second = consumer.receive()
        world.crash()
        world.advance(5)
        assert consumer.receive() == []
        assert consumer.acknowledge(first)
        world.crash()
        world.advance(5)
        assert consumer.acknowledge(first)
        world.advance(25)
        assert numbers(consumer.receive()) == [1]
        assert not consumer.acknowledge(second)


def test_a_lease_can_be_extended_across_a_crash() -> None:
    app, jobs = shop()
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        (message,) = consumer.receive()
        world.advance(20)
        assert consumer.extend(message, 60)
        world.crash()
        world.advance(50)
        assert consumer.receive() == []
        assert consumer.acknowledge(message)
        world.run_until_idle()
        assert world.lag() == 0


def test_a_refused_message_comes_again_after_its_delay_and_then_is_a_dead_letter() -> None:
    app, jobs = shop(max_receives=2)
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        assert consumer.refuse(consumer.receive()[0], delay=100)
        world.advance(99)
        assert consumer.receive() == []
        world.advance(2)
        (message,) = consumer.receive()
        assert message.attempt == 2
        assert consumer.refuse(message)
        world.advance(1)
        assert len(world.dead_letters("shop.jobs.outside")) == 1
        assert world.redrive("shop.jobs.outside") == 1
        assert consumer.acknowledge(consumer.receive()[0])
        world.run_until_idle()
        assert world.dead_letters() == []


def test_a_fifo_group_gives_out_one_message_at_a_time_in_order() -> None:
    app, jobs = shop(fifo=True)
    with World(app) as world:
        send(world, 0, 1, key="ada")
        send(world, 10, 11, key="bob")
        consumer = world.consumer(jobs)
        first = consumer.receive()
        assert numbers(first) == [0, 10]
        assert consumer.acknowledge(first[0])
        world.advance(1)
        assert numbers(consumer.receive()) == [1]
        assert consumer.refuse(first[1], delay=5)
        world.advance(1)
        assert consumer.receive() == []
        world.advance(5)
        assert numbers(consumer.receive()) == [10]


def test_a_delayed_message_holds_up_nobody_and_comes_once_whatever_dies() -> None:
    app, jobs = shop()
    with World(app) as world:
        consumer = world.consumer(jobs)
        for n in range(3):
            send(world, n, delay="3600")
        send(world, 10)
        (prompt,) = consumer.receive()
        assert numbers([prompt]) == [10]
        assert consumer.acknowledge(prompt)
        world.crash()
        world.advance("59m")
        assert consumer.receive() == []
        world.crash(at="delay:before-append")
        world.advance("2m")
        assert world.deaths
        assert sorted(numbers(consumer.receive())) == [0, 1, 2]
        assert len(world.published("jobs")) == 4


def test_a_queue_delays_what_a_function_sends_too() -> None:
    app, jobs = shop(delay=60.0)
    orders = app.stream("orders")

    @app.function(orders)
    def order(event: Event[dict[str, int]], context: Context) -> None:
        context.publish(jobs, event.value)
        context.publish(jobs, {"n": 99}, headers={"headrace-delay": "0"})

    with World(app) as world:
        world.publish("orders", {"n": 1})
        world.advance(1)
        consumer = world.consumer(jobs)
        assert numbers(consumer.receive()) == [99]
        world.advance(60)
        assert 1 in numbers(consumer.receive())


def test_a_message_with_priority_is_received_first() -> None:
    app, jobs = shop()
    with World(app) as world:
        send(world, 0)
        send(world, 1, priority="-10")
        send(world, 2, priority="600")
        assert numbers(world.consumer(jobs).receive()) == [2, 0, 1]


def test_a_function_listens_to_a_queue_with_the_queues_settings() -> None:
    app, jobs = shop(max_receives=3, visibility=5.0)
    seen: list[tuple[int, int]] = []

    @app.function(jobs)
    def work(event: Event[dict[str, int]], context: Context) -> None:
        seen.append((event.value["n"], context.attempt))
        if event.value["n"] == 0:
            raise RuntimeError("poison")

    spec = app.spec()
    assert (spec.functions[0].order, spec.functions[0].timeout) == ("none", 5.0)
    assert spec.streams[0].queue is not None
    assert spec.streams[0].queue.outside is False
    with World(app) as world:
        send(world, 0, 1, 2)
        world.run_until_idle()
        assert [letter.attempts for letter in world.dead_letters("shop.work")] == [3]
    assert sorted(seen) == [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1)]


def test_a_queue_may_have_functions_and_programs_outside() -> None:
    app, jobs = shop(outside=True)
    seen: list[int] = []

    @app.function(jobs)
    def work(event: Event[dict[str, int]]) -> None:
        seen.append(event.value["n"])

    with World(app) as world:
        send(world, 7)
        world.advance(1)
        assert numbers(world.consumer(jobs).receive()) == [7]
    assert seen == [7]


def test_a_function_that_needs_longer_asks_for_it() -> None:
    app, jobs = shop(visibility=5.0, max_receives=2)
    left: list[float] = []

    @app.function(jobs)
    async def work(event: Event[dict[str, int]], context: Context) -> None:
        if event.value["n"]:
            context.extend(60)
        left.append(context.remaining())
        await asyncio.sleep(30)

    with World(app) as world:
        send(world, 0, 1)
        world.run_until_idle()
        assert [letter.position.offset for letter in world.dead_letters("shop.work")] == [0]
        assert world.lag() == 0
    assert [round(seconds) for seconds in sorted(left)] == [5, 5, 60]


def test_what_was_said_of_a_dead_message_does_not_count_once_it_is_redriven() -> None:
    app, jobs = shop(max_receives=1)
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        assert consumer.refuse(consumer.receive()[0])
        world.advance(1)
        assert world.redrive("shop.jobs.outside") == 1
        world.advance(1)
        (message,) = consumer.receive()
        assert consumer.acknowledge(message)
        world.run_until_idle()
        assert world.dead_letters() == []


def test_a_queue_that_is_reset_gives_out_again_what_was_acknowledged() -> None:
    app, jobs = shop()
    with World(app) as world:
        send(world, 0, 1)
        consumer = world.consumer(jobs)
        first, second = consumer.receive()
        assert consumer.acknowledge(first)
        world.reset("shop.jobs.outside")
        world.advance(1)
        assert numbers(consumer.receive()) == [0, 1]
        assert not consumer.acknowledge(second)


def test_a_message_that_is_being_redriven_is_still_held_after_a_crash() -> None:
    app, jobs = shop(max_receives=1)
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        assert consumer.refuse(consumer.receive()[0])
        world.advance(1)
        assert world.redrive("shop.jobs.outside") == 1
        (message,) = consumer.receive()
        world.crash()
        world.advance(5)
        assert consumer.receive() == []
        assert consumer.acknowledge(message)
        world.run_until_idle()
        assert (world.lag(), world.dead_letters()) == (0, [])


def test_a_message_that_is_redriven_holds_back_no_other_of_its_key() -> None:
    app, jobs = shop(max_receives=1)
    with World(app) as world:
        send(world, 0, key="ada")
        consumer = world.consumer(jobs)
        assert consumer.refuse(consumer.receive()[0])
        world.advance(1)
        assert world.redrive("shop.jobs.outside") == 1
        assert numbers(consumer.receive()) == [0]
        send(world, 1, key="ada")
        assert numbers(consumer.receive()) == [1]


def test_an_acknowledgement_that_lands_as_the_time_is_over_counts() -> None:
    app, jobs = shop(visibility=1.0)
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        (message,) = consumer.receive()
        world.advance(0.7)
        weather = world._lives.weather
        weather.odds, weather.delay = {Fault.SLOW: 1.0}, lambda: 0.5  # type: ignore[method-assign]
        assert consumer.acknowledge(message)
        weather.odds = {}
        world.advance(60)
        assert consumer.receive() == []
        assert world.lag() == 0


def test_a_refusal_keeps_its_delay_and_is_counted_though_the_host_dies_with_it() -> None:
    app, jobs = shop(max_receives=2)
    with World(app) as world:
        send(world, 0)
        consumer = world.consumer(jobs)
        (message,) = consumer.receive()
        world.crash(at="pump:after-invoke")
        with contextlib.suppress(Unavailable):
            consumer.refuse(message, delay=100)
        world.advance(95)
        assert world.deaths == ["at pump:after-invoke"]
        assert consumer.receive() == []
        world.advance(10)
        (again,) = consumer.receive()
        assert again.attempt == 2
