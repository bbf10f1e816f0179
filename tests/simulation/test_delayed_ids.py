"""A message's id is judged when it is sent, whoever sends it, and is known as long as the message waits."""

from __future__ import annotations

import pytest

from headrace import App, Context, Event
from headrace.client.calls import ENVELOPES
from headrace.testing import World

LONG, SHORTER = {"headrace-delay": "3600"}, {"headrace-delay": "3000"}


def post() -> App:
    """A queue, what its reader got, and functions that send to it from a stream and when called."""
    app = App("post")
    jobs, got = app.queue("jobs", dedupe_window=60), app.stream("got")
    sent = app.stream("sent")

    @app.function(jobs)
    def read(event: Event[int], context: Context) -> None:
        context.publish(got, event.value)

    @app.function(sent)
    def send(event: Event[int], context: Context) -> None:
        headers = LONG if event.value == 1 else SHORTER
        context.publish(jobs, event.value, id="x", headers=headers)

    @app.function()
    def called(event: Event[int], context: Context) -> None:
        headers = LONG if event.value == 1 else SHORTER
        context.publish(jobs, event.value, id="x", headers=headers)

    return app


def send(world: World, way: str, value: int) -> None:
    if way == "producer":
        world.publish("jobs", value, id="x", headers=LONG if value == 1 else SHORTER)
    elif way == "function":
        world.publish("sent", value)
    else:
        assert world.ask("POST", "/-/v1/functions/post.called", value).status == 200
    world.advance("1s")


ways = pytest.mark.parametrize("way", ["producer", "function", "call"])


@ways
def test_an_id_is_known_as_long_as_its_message_waits_and_then_as_long_as_it_is_remembered(
    way: str,
) -> None:
    with World(post()) as world:
        send(world, way, 1)
        world.advance("30m")
        send(world, way, 2)
        assert world.values("got") == []
        world.advance("2h")
        assert world.values("got") == [1]
        send(world, way, 3)
        world.advance("2h")
        assert world.values("got") == [1, 3]


@ways
def test_a_message_that_is_sent_again_while_it_waits_arrives_once(way: str) -> None:
    with World(post()) as world:
        send(world, way, 1)
        world.crash()
        send(world, way, 2)
        world.publish("jobs", 3, id="x")
        world.advance("2h")
        assert world.values("got") == [1]


def test_the_door_says_that_a_delayed_message_was_sent_before() -> None:
    body = {"value": 1, "id": "x", "headers": LONG}
    with World(post()) as world:
        told = [
            world.ask("POST", "/-/v1/streams/jobs", body, content_type=ENVELOPES).body
            for _ in range(2)
        ]
        assert [answer["duplicates"] for answer in told] == [0, 1]
