"""`delay=`, `at=` and `cancel`, from every kind of run: a message waits, and is taken back, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import App, Batch, Consumer, Context, Event, Http, Output
from headrace.client.calls import ENVELOPES
from headrace.model.errors import Misuse
from headrace.sources import Lag
from headrace.testing import World

DAY = datetime(2026, 1, 2, tzinfo=UTC)


def post() -> App:
    """A queue of reminders, what was reminded of, and a function for each kind of run."""
    app = App("post")
    reminders = app.queue("reminders", value=int, dedupe_window=60)
    got, orders, paid = app.stream("got"), app.stream("orders"), app.stream("paid")

    @app.function(reminders)
    def remind(event: Event[int], context: Context) -> None:
        context.publish(got, event.value)

    def do(number: int, context: Context) -> None:
        if number > 0:
            context.publish(reminders, number, delay="24h", id=f"remind/{number}")
        else:
            context.cancel(reminders, f"remind/{-number}")

    @app.function(orders)
    def single(event: Event[int], context: Context) -> None:
        do(event.value, context)

    @app.function(app.stream("batches"))
    def batch(events: Batch[int], context: Context) -> None:
        for event in events:
            do(event.value, context)

    @app.function(app.stream("keyed"), order="key", parallelism=4)
    async def keyed(event: Event[int], context: Context) -> None:
        do(event.value, context)

    @app.function(app.queue("jobs", value=int))
    def job(event: Event[int], context: Context) -> None:
        do(event.value, context)

    app.stream("lagging", value=int)

    @app.function(Lag("lagging"))
    def fetching(consumer: Consumer[Any], context: Context) -> None:
        while fetched := consumer.fetch():
            for event in fetched:
                do(event.value, context)
            consumer.commit()

    @app.function(Http("POST", "/sync"))
    def synchronous(event: Event[int], context: Context) -> None:
        do(event.value, context)

    @app.function(Http("POST", "/live", mode="live"))
    def live(event: Event[int], context: Context) -> Iterator[int]:
        do(event.value, context)
        yield event.value

    @app.function(Http("POST", "/later", mode="async"))
    def asynchronous(event: Event[int], context: Context) -> None:
        do(event.value, context)

    @app.function()
    def called(event: Event[int], context: Context) -> None:
        do(event.value, context)

    @app.function(paid, output=reminders)
    def returned(event: Event[int], context: Context) -> Output[int] | None:
        if event.value < 0:
            context.cancel("reminders", f"remind/{-event.value}")
            return None
        return Output(event.value, id=f"remind/{event.value}", delay=timedelta(days=1))

    return app


def streamed(stream: str) -> Callable[[World, int], None]:
    def send(world: World, number: int) -> None:
        world.publish(stream, number, key="k")
        world.run_until_idle()

    return send


def asked(path: str) -> Callable[[World, int], None]:
    def send(world: World, number: int) -> None:
        assert world.ask("POST", path, number).status < 300
        world.run_until_idle()

    return send


def produced(world: World, number: int) -> None:
    if number > 0:
        world.publish("reminders", number, delay="24h", id=f"remind/{number}")
    else:
        world.cancel("reminders", f"remind/{-number}")


def by_http(world: World, number: int) -> None:
    if number > 0:
        told = world.ask("POST", f"/-/v1/queues/reminders?delay=24h&id=remind/{number}", number)
        assert (told.status, told.body["delayed"]) == (202, 1)
    else:
        ids = [f"remind/{-number}"]
        told = world.ask("POST", "/-/v1/queues/reminders/cancel", {"ids": ids})
        assert told.body == {"cancelled": ids, "unknown": []}


WAYS: dict[str, Callable[[World, int], None]] = {
    **{name: streamed(name) for name in ("orders", "batches", "keyed", "jobs", "lagging", "paid")},
    **{path: asked(path) for path in ("/sync", "/live", "/later", "/-/v1/functions/post.called")},
    "producer": produced,
    "http": by_http,
}
ways = pytest.mark.parametrize("way", WAYS)


@ways
def test_a_message_waits_and_is_delivered_when_it_is_due(way: str) -> None:
    with World(post()) as world:
        WAYS[way](world, 7)
        (due,) = world.run_until_idle()
        assert (due.queue, due.id, due.value) == ("reminders", "remind/7", 7)
        assert timedelta(0) <= due.at - DAY < timedelta(seconds=2)
        assert world.now < DAY
        world.advance("23h")
        assert world.values("got") == []
        world.crash()
        world.advance("2h")
        assert world.values("got") == [7]
        assert world.run_until_idle() == []


@ways
def test_a_cancelled_message_never_comes_and_its_id_may_be_used_anew(way: str) -> None:
    with World(post()) as world:
        WAYS[way](world, 7)
        WAYS[way](world, 8)
        WAYS[way](world, -7)
        assert [due.value for due in world.waiting] == [8]
        WAYS[way](world, 7)
        assert [due.value for due in world.waiting] == [8, 7]
        WAYS[way](world, -7)
        world.advance("2d")
        assert world.values("got") == [8]


@ways
def test_what_was_delivered_stays_and_is_not_sent_again(way: str) -> None:
    with World(post()) as world:
        WAYS[way](world, 7)
        world.advance("25h")
        if way == "http":
            ids = ["remind/7"]
            told = world.ask("POST", "/-/v1/queues/reminders/cancel", {"ids": ids})
            assert told.body == {"cancelled": [], "unknown": ids}
        else:
            WAYS[way](world, -7)
        world.advance("1d")
        assert world.values("got") == [7]


@pytest.mark.parametrize(
    ("numbers", "left"), [((7, -7), []), ((7, -7, 7), [7]), ((-7, 7), [7]), ((7, 8, -7), [8])]
)
def test_one_run_publishes_and_cancels_in_its_own_order(
    numbers: tuple[int, ...], left: list[int]
) -> None:
    with World(post()) as world:
        world.publish("batches", *numbers)
        world.run_until_idle()
        assert [due.value for due in world.waiting] == left


def test_a_cancel_lands_with_its_run_or_not_at_all() -> None:
    app = App("shop")
    reminders, paid = app.queue("reminders", value=int), app.stream("paid")

    @app.function(paid)
    def settle(events: Batch[int], context: Context) -> None:
        for event in events:
            context.cancel(reminders, f"{event.value}")
            if event.value == 2:
                context.fail(event, "not booked")

    with World(app) as world:
        for number in (1, 2):
            world.publish(reminders, number, delay="1h", id=f"{number}")
        world.fail("shop.settle")
        world.publish(paid, 1, 2)
        world.run_until_idle()
        assert [due.value for due in world.waiting] == [2]
        assert [dead.cause.message for dead in world.dead_letters()] == ["not booked"]


@pytest.mark.parametrize("at", ["commit:before-write", "commit:after-fsync"])
def test_a_host_that_dies_amid_it_cancels_once(at: str) -> None:
    with World(post()) as world:
        world.publish("orders", 7)
        world.run_until_idle()
        world.crash(at, 2)
        world.publish("paid", -7)
        world.run_until_idle()
        assert world.waiting == []
        world.publish("orders", 7)
        world.deliver_twice()
        world.run_until_idle()
        world.advance("25h")
        assert world.values("got") == [7]


def test_another_apps_queue_is_cancelled_by_who_may_publish_there() -> None:
    post = App("post")
    post.queue("reminders", value=int)
    shop = App("shop")
    theirs, paid = shop.external("reminders"), shop.stream("paid")
    shop.external("orders")

    @shop.function(paid, publishes=[theirs])
    def allowed(event: Event[str], context: Context) -> None:
        context.cancel("reminders", event.value)

    @shop.function(paid)
    def forbidden(event: Event[str], context: Context) -> None:
        context.cancel("reminders", event.value)

    with World(post, shop) as world:
        world.publish("reminders", 1, delay="1h", id="a")
        world.publish(paid, "a")
        world.run_until_idle()
        assert world.waiting == []
        assert [(dead.function, dead.cause.kind) for dead in world.dead_letters()] == [
            ("shop.forbidden", "Refused")
        ]


def test_events_of_a_stream_do_not_wait_whoever_asks() -> None:
    post = App("post")
    orders = post.stream("orders", value=int)
    shop = App("shop")
    theirs = shop.external("orders")
    asks = shop.stream("asks")

    @post.function(asks_of := post.stream("asks.own"))
    def own(event: Event[int], context: Context) -> None:
        context.publish(orders, 1, delay="1h")  # type: ignore[call-overload]  # that is the mistake

    @shop.function(asks, publishes=[theirs])
    def foreign(event: Event[int], context: Context) -> None:
        context.publish("orders", 1, delay="1h")

    with World(post, shop) as world:
        world.publish(asks_of, 1)
        world.publish(asks, 1)
        world.run_until_idle()
        causes = [dead.cause for dead in world.dead_letters()]
        assert sorted(cause.kind for cause in causes) == ["Invalid", "Misuse"]
        assert all("is a stream" in cause.message for cause in causes)
        with pytest.raises(Misuse, match="is a stream, not a queue"):
            world.publish(orders, 1, delay=5)
        for path in (
            "/-/v1/streams/orders?delay=5",
            "/-/v1/streams/orders?at=2026-02-01T00:00:00Z",
        ):
            assert "is a stream" in world.ask("POST", path, 1).body["detail"]
        line = {"value": 1, "delay": 5}
        told = world.ask("POST", "/-/v1/streams/orders", line, content_type=ENVELOPES)
        assert (told.status, "is a stream" in told.body["detail"]) == (400, True)
        assert world.values(orders) == []


@pytest.mark.parametrize(
    "when",
    [{"at": DAY}, {"at": DAY.timestamp()}, {"at": "2026-01-02T01:00:00+01:00"}, {"delay": "1d"}],
)
def test_a_date_may_be_given_in_place_of_a_delay(when: dict[str, Any]) -> None:
    with World(post()) as world:
        world.publish("reminders", 1, **when)
        (due,) = world.waiting
        assert due.at == DAY
        envelope = {"value": 2, **when, "at": "2026-01-02T00:00:00Z"}
        envelope.pop("delay", None)
        told = world.ask("POST", "/-/v1/streams/reminders", envelope, content_type=ENVELOPES).body
        assert (told["delayed"], told["positions"]) == (1, [None])
        world.advance("1d")
        assert world.values("got") == [1, 2]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("delay=soon", "write seconds, a text such as"),
        ("delay=2y", "write seconds, a text such as"),
        ("delay=366d", "out of range"),
        ("delay=5&at=2026-02-01T00:00:00Z", "give one of them"),
        ("at=2026-02-01T00:00:00", "has no time zone"),
        ("at=tomorrow", "is not a date"),
        ("at=2036-02-01T00:00:00Z", "a year is the most"),
    ],
)
def test_a_time_that_cannot_be_is_refused_with_the_fix(query: str, reason: str) -> None:
    with World(post()) as world:
        told = world.ask("POST", f"/-/v1/queues/reminders?{query}", 1)
        assert told.status == 400
        assert reason in told.body["detail"]
        assert world.waiting == []


def test_what_is_due_in_the_past_comes_at_once() -> None:
    with World(post()) as world:
        world.advance("1d")
        world.publish("reminders", 1, at=DAY - timedelta(hours=1))
        assert world.run_until_idle() == []
        assert world.values("got") == [1]


def test_a_date_is_not_work_however_far_it_is() -> None:
    with World(post()) as world:
        world.publish("reminders", 1, delay="364d")
        began = world.now
        (due,) = world.run_until_idle(limit="1d")
        assert (due.value, world.now) == (1, began)


def test_purged_messages_free_their_ids() -> None:
    with World(post()) as world:
        world.publish("reminders", 1, delay="1h", id="x")
        world.ask("POST", "/-/v1/queues/reminders/purge", {"all": True})
        assert world.waiting == []
        assert not world.cancel("reminders", "x")
        world.advance("2m")
        world.publish("reminders", 2, delay="1h", id="x")
        assert [due.value for due in world.waiting] == [2]
