"""What operators see of queues and do to them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Event, Retry
from headrace.admin.queues import COUNT_PAGE, QueueRow, Queues
from headrace.errors import Misuse, Unknown
from headrace.testing import World


def desk(world: World) -> Queues:
    """The operator's view of a world."""
    lives = world._lives
    services = lives.node.services
    return Queues(
        services.supervisor,
        services.lag,
        world._dead,
        storage=lives.storage,
        broker=lives.broker,
        clock=lives.clock,
    )


def looked(world: World, queue: str = "jobs") -> QueueRow:
    row: QueueRow = world._drive(desk(world).row(queue))
    return row


def outside_app() -> App:
    app = App("shop")
    app.queue("jobs", visibility=30, max_receives=2)
    return app


def test_what_waits_is_in_flight_delayed_or_dead_is_counted() -> None:
    with World(outside_app()) as world:
        for number in range(5):
            world.publish("jobs", number)
        world.publish("jobs", 5, headers={"headrace-delay": "60"})
        consumer = world.consumer("jobs")
        first, second = consumer.receive(2)
        assert consumer.acknowledge(first)
        world.advance("1ms")
        row = looked(world)
        (reader,) = row.readers
        assert (reader.group, reader.outside) == ("shop.jobs.outside", True)
        assert (reader.waiting, reader.in_flight, row.delayed) == (3, 1, 1)
        assert (reader.dead, reader.parked, reader.state) == (0, 0, "running")
        consumer.refuse(second)
        (again,) = consumer.receive(1)
        while again.position != second.position:
            consumer.acknowledge(again)
            (again,) = consumer.receive(1)
        consumer.refuse(again)
        world.advance("1s")
        assert looked(world).readers[0].dead == 1
        assert [row.queue for row in world._drive(desk(world).rows())] == ["jobs"]


def test_a_peek_takes_nothing_and_says_how_each_message_stands() -> None:
    with World(outside_app()) as world:
        for number in range(4):
            world.publish("jobs", number, key=f"k{number}")
        world.publish("jobs", 9, headers={"headrace-delay": "60"})
        consumer = world.consumer("jobs")
        first, _ = consumer.receive(2)
        consumer.acknowledge(first)
        world.advance("1s")
        seen = world._drive(desk(world).peek("jobs"))
        assert [(each.state, each.receives, each.event.value) for each in seen] == [
            ("in flight", 1, b"1"),
            ("waiting", 0, b"2"),
            ("waiting", 0, b"3"),
            ("delayed", 0, b"9"),
        ]
        assert [each.position for each in seen] == ["jobs/0/1", "jobs/0/2", "jobs/0/3", ""]
        assert len(world._drive(desk(world).peek("jobs", limit=2))) == 2
        # A second look finds the same, and the messages can still be received.
        assert world._drive(desk(world).peek("jobs")) == seen
        assert sorted(message.event.value for message in consumer.receive()) == [b"2", b"3"]


def test_a_purge_lets_everything_count_as_done_and_nothing_comes_back() -> None:
    with World(outside_app()) as world:
        for number in range(5):
            world.publish("jobs", number)
        world.publish("jobs", 5, headers={"headrace-delay": "60"})
        consumer = world.consumer("jobs")
        (held,) = consumer.receive(1)
        purged = world._drive(desk(world).purge("jobs"))
        assert (purged.delayed, purged.readers) == (1, {"shop.jobs.outside": 5})
        assert consumer.receive() == []
        world.crash()
        world.advance("120s")
        assert world.consumer("jobs").receive() == []
        assert consumer.acknowledge(held) in {True, False}
        row = looked(world)
        assert (row.readers[0].waiting, row.readers[0].in_flight, row.delayed) == (0, 0, 0)
        world.publish("jobs", 6)
        assert [message.event.value for message in consumer.receive()] == [b"6"]


def test_a_purge_leaves_a_functions_other_streams_alone() -> None:
    app = App("shop")
    jobs, orders = app.queue("jobs"), app.stream("orders")
    done = app.stream("done")

    @app.function(jobs, orders, output=done)
    def take(event: Event[Any]) -> Any:
        return [[event.stream, event.value]]

    with World(app) as world:
        world.pause("shop.take")
        world.publish(jobs, 1)
        world.publish(orders, 2)
        assert world._drive(desk(world).purge("jobs")).readers == {"shop.take": 1}
        world.resume("shop.take")
        world.run_until_idle()
        assert world.values(done) == [["orders", 2]]


def test_a_redrive_gives_out_the_queues_dead_messages_and_no_others() -> None:
    app = App("shop")
    jobs, orders = app.queue("jobs"), app.stream("orders")
    done = app.stream("done")
    broken = True

    @app.function(jobs, orders, output=done, retry=Retry(attempts=1))
    def take(event: Event[Any]) -> Any:
        if broken:
            raise ValueError("not now")
        return [[event.stream, event.value]]

    with World(app) as world:
        world.publish(jobs, 1)
        world.publish(orders, 2)
        world.run_until_idle()
        assert len(world.dead_letters()) == 2
        broken = False
        assert world._drive(desk(world).redrive("jobs")) == 1
        world.run_until_idle()
        assert world.values(done) == [["jobs", 1]]
        assert [dead.position.stream for dead in world.dead_letters()] == ["orders"]


def test_a_redrive_gives_out_every_dead_message_however_many_there_are() -> None:
    app = App("shop")
    jobs, done = app.queue("jobs", partitions=2), app.stream("done")
    broken = True

    @app.function(jobs, output=done, retry=Retry(attempts=1))
    def take(event: Event[int]) -> int:
        if broken:
            raise ValueError("not now")
        return event.value

    count = 2 * COUNT_PAGE + 1
    with World(app) as world:
        world.publish(jobs, *range(count), key=str)
        world.run_until_idle()
        broken = False
        assert sum(row.dead for row in world._drive(desk(world).rows())[0].readers) == count
        assert world._drive(desk(world).redrive("jobs")) == count
        world.run_until_idle()
        assert sorted(world.values(done)) == list(range(count))
        assert world.dead_letters() == []


def test_a_stream_is_no_queue_and_a_reader_has_to_be_one() -> None:
    app = App("shop")
    jobs = app.queue("jobs")
    app.stream("orders")

    @app.function(jobs)
    def first(event: Event[Any]) -> None: ...

    @app.function(jobs)
    def second(event: Event[Any]) -> None: ...

    with World(app) as world:
        with pytest.raises(Unknown, match="is a stream, not a queue"):
            looked(world, "orders")
        with pytest.raises(Misuse, match=r"read by `shop\.first`, `shop\.second`"):
            world._drive(desk(world).peek("jobs"))
        with pytest.raises(Unknown, match="reads no messages of `jobs`"):
            world._drive(desk(world).peek("jobs", "shop.third"))
        assert world._drive(desk(world).peek("jobs", "shop.first")) == []
