"""The bus in a world: events reach the rules they are meant by, each once, whatever dies."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Context
from headrace.bus import HttpTarget, Rule
from headrace.bus.transform import transform_of
from headrace.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.sdk.event import Event as Given
from headrace.testing import World


def shop() -> App:
    app = App("shop")
    orders = app.stream("orders", 2, value=dict)
    big = app.stream("big")
    archive = app.stream("archive", 2)
    seen = app.stream("seen")
    large = {"detail": {"total": [{"numeric": [">", 100]}]}}
    app.forward(Rule(large, streams=("orders",)), to=archive, name="keep")

    @app.function(Rule(large, streams=(orders,)), output=big)
    def notice(event: Given[dict[str, Any]]) -> Any:
        return {"id": event.id, "total": event.value["total"]}

    @app.function(
        Rule(
            {"source": ["orders"], "key": ["eva"]},
            streams=("orders",),
            paths={"total": "$.detail.total"},
            template='{"text": "eva spent <total>"}',
        ),
        output=seen,
    )
    def follow(event: Given[Any]) -> Any:
        return event.value

    return app


def test_an_event_reaches_every_rule_it_is_meant_by() -> None:
    with World(shop()) as world:
        world.publish("orders", {"total": 150}, key="eva")
        world.publish("orders", {"total": 20}, key="eva")
        world.publish("orders", {"total": 999}, key="bob")
        world.run_until_idle()
        assert sorted(one["total"] for one in world.values("big")) == [150, 999]
        assert sorted(one["text"] for one in world.values("seen")) == [
            "eva spent 150",
            "eva spent 20",
        ]
        kept = world.published("archive")
        assert sorted((one.key, one.value["total"]) for one in kept) == [("bob", 999), ("eva", 150)]
        assert {one.source for one in kept} == {"orders"}


@pytest.mark.parametrize(
    "at",
    [
        "pump:after-read",
        "pump:before-invoke",
        "pump:after-invoke",
        "pump:after-commit",
        "commit:before-fsync",
        "commit:after-fsync",
        "claim:before-write",
        "claim:after-write",
    ],
)
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_host_that_dies_between_any_two_steps_loses_and_doubles_nothing(
    at: str, passes: int
) -> None:
    with World(shop(), seed=passes) as world:
        world.crash(at, passes)
        for number in range(20):
            _publish(world, number)
            if number == 9:
                world.crash()
        world.run_until_idle()
        assert sorted(one["total"] for one in world.values("big")) == list(range(101, 121))
        assert sorted(one["total"] for one in world.values("archive")) == list(range(101, 121))
        world.assert_order("archive", by=lambda event: event.value["total"])


def _publish(world: World, number: int) -> None:
    """As a producer does: again, under the same id, until it is answered."""
    while True:
        try:
            world.publish("orders", {"total": 101 + number}, key=f"k{number % 5}", id=str(number))
        except Unavailable:
            continue
        return


def test_the_default_bus_shows_envelopes_as_they_were_published() -> None:
    app = App("billing")
    bus = app.bus()
    found = app.stream("found")

    @app.function(Rule({"source": ["shop"], "detail": {"state": ["paid"]}}), output=found)
    def bill(event: Given[Any]) -> Any:
        return event.value["detail"]["id"]

    assert app.bus() is bus
    with World(app) as world:
        world.publish(
            "default", {"source": "shop", "detail-type": "x", "detail": {"state": "open"}}
        )
        paid = {"source": "shop", "detail-type": "x", "detail": {"state": "paid", "id": 7}}
        world.publish("default", paid)
        world.run_until_idle()
        assert world.values("found") == [7]


def test_a_type_and_source_given_as_cloudevents_are_shown_to_rules() -> None:
    app = App("a")
    app.bus("events")
    found = app.stream("found")

    @app.function(
        Rule({"source": ["probe"], "detail-type": ["Reading"]}, bus="events"), output=found
    )
    def take(event: Given[Any]) -> Any:
        return event.value

    with World(app) as world:
        world.publish("events", Event(b'{"a": 1}', type="Reading", source="probe"), Event(b"\xff"))
        world.run_until_idle()
        assert world.values("found") == [{"a": 1}]


def http() -> App:
    app = App("hooks")
    app.bus("events")
    target = HttpTarget("https://hooks.example.com/in?x=1", headers={"X-Team": "red"})
    app.forward(
        Rule({"detail": {"go": [True]}}, bus="events", path="$.detail"), to=target, name="out"
    )
    return app


def test_an_http_target_is_posted_to_and_asked_again_while_it_cannot() -> None:
    with World(http()) as world:
        world.answers.extend([503, 429])
        world.publish("events", {"go": True, "n": 1}, id="e1")
        world.publish("events", {"go": False})
        world.run_until_idle()
        first, *_, last = world.posted
        assert len(world.posted) == 3
        assert first == last
        assert last.body == b'{"go":true,"n":1}'
        assert last.headers["ce-id"] == last.headers["idempotency-key"] == "e1"
        assert last.headers["x-team"] == "red"
        assert world.dead_letters() == []


def test_an_id_that_is_written_like_a_position_is_posted_as_another_one() -> None:
    with World(http()) as world:
        world.publish("events", {"go": True, "n": 1})
        world.publish("events", {"go": True, "n": 2}, id="events/0/0")
        world.run_until_idle()
        keys = [each.headers["idempotency-key"] for each in world.posted]
        assert keys == ["events/0/0", ":events/0/0"]


def test_an_http_target_that_refuses_makes_a_dead_letter_that_can_be_redriven() -> None:
    with World(http()) as world:
        world.answers.append(404)
        world.publish("events", {"go": True})
        world.run_until_idle()
        (dead,) = world.dead_letters("_bus.http.hooks.out")
        assert dead.cause.kind == "Http404"
        assert world.redrive("_bus.http.hooks.out") == 1
        world.run_until_idle()
        assert len(world.posted) == 2
        assert world.dead_letters() == []


def test_a_rule_begins_with_what_comes_after_it() -> None:
    app = App("a")
    app.stream("events")
    later = App("b")
    events = later.external("events")

    @later.function(Rule({"detail": {"n": [{"exists": True}]}}, streams=[events]))
    def take(event: Given[Any], context: Context) -> None:
        context.state.put(str(event.value["n"]), True)

    with World(app) as world:
        world.publish("events", {"n": 1})
        world.run_until_idle()
        world._lives.apps["b"] = later
        world._lives.specs.append(later.spec())
        world.crash()
        world.publish("events", {"n": 2})
        world.run_until_idle()
        assert "2" in world.state("b.take")
        assert "1" not in world.state("b.take")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule({"a": "x"}, bus="events"), "rule of `a.keep`.*must be an object or an array"),
        (Rule({"a": ["x"]}, bus="events", path="a"), "rule of `a.keep`.*must begin with"),
        (Rule({"a": ["x"]}, bus="kept"), "back to it"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_at_deployment(rule: Rule, said: str) -> None:
    app = App("a")
    app.bus("events")
    app.forward(rule, to=app.stream("kept"), name="keep")
    with pytest.raises(Misuse, match=said), World(app):
        pass


def test_a_private_stream_of_another_app_cannot_be_watched() -> None:
    owner, other = App("owner"), App("other")
    owner.stream("secrets", private=True)

    @other.function(Rule({"detail": {"a": [1]}}, streams="secrets"))
    def peek(event: Given[Any]) -> None: ...

    with pytest.raises(Misuse, match="private to `owner`"), World(owner, other):
        pass


def test_what_is_no_target_is_refused_where_it_is_written() -> None:
    app = App("a")
    with pytest.raises(Misuse, match="is not a target"):
        app.forward(Rule({"a": [1]}), to="x", name="y")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="is not an address"):
        HttpTarget("ftp://example.com")
    with pytest.raises(Misuse, match="takes no settings"):
        app.bus(partitions=3)


def test_what_a_rule_makes_too_large_is_a_dead_letter_and_the_others_go_on() -> None:
    app = App("a")
    app.bus("events")
    small = app.stream("small", max_event_bytes=64)
    app.forward(Rule({"detail": {"n": [{"exists": True}]}}, bus="events"), to=small, name="keep")
    with World(app) as world:
        for number in range(5):
            world.publish("events", {"n": number, "text": "x" * (100 if number == 2 else 1)})
        world.run_until_idle()
        assert [one["n"] for one in world.values("small")] == [0, 1, 3, 4]
        (dead,) = world.dead_letters("_bus.refused.events")
        assert "64" in dead.cause.message


def test_two_rules_of_one_function_are_distinguished() -> None:
    app = App("a")
    app.bus("events")
    found = app.stream("found")

    @app.function(
        Rule({"detail": {"a": [1]}}, bus="events"),
        Rule({"detail": {"b": [1]}}, bus="events"),
        output=found,
    )
    def take(event: Given[Any]) -> Any:
        return event.value

    with World(app) as world:
        world.publish("events", {"a": 1}, {"b": 1}, {"a": 1, "b": 1})
        world.run_until_idle()
        assert len(world.values("found")) == 4
        world.bus_replay("events", "a.take#1")
        world.run_until_idle()
        assert len(world.values("found")) == 6


def test_a_queue_is_a_target_like_any_stream() -> None:
    app = App("a")
    app.bus("events")
    jobs = app.queue("jobs")
    done = app.stream("done")
    app.forward(Rule({"detail": {"n": [{"exists": True}]}}, bus="events"), to=jobs, name="work")

    @app.function(jobs, output=done)
    def work(event: Given[Any]) -> Any:
        return event.value["n"]

    with World(app, seed=2) as world:
        world.publish("events", *({"n": number} for number in range(10)))
        world.crash()
        world.run_until_idle()
        assert sorted(world.values("done")) == list(range(10))


def test_a_rule_that_watches_nothing_is_refused_by_name() -> None:
    app = App("a")
    app.forward(Rule({"detail": {"n": [1]}}, bus="evnts"), to=app.stream("events"), name="keep")
    with pytest.raises(Misuse, match=r"rule of `a\.keep` watches `evnts`: .*events"), World(app):
        pass


def test_forwards_in_a_circle_are_stopped_and_parked() -> None:
    app = App("a")
    ping, pong = app.stream("ping"), app.stream("pong")
    every: dict[str, Any] = {"detail": {"n": [{"exists": True}]}}
    app.forward(Rule(every, streams=ping), to=pong, name="there")
    app.forward(Rule(every, streams=pong), to=ping, name="back")
    with World(app) as world:
        world.publish("ping", {"n": 1}, key="k")
        world.run_until_idle()
        (parked,) = world.parked()
        assert parked.key == "k"
        assert len(world.values("ping")) < 100


def sizes(limit: int) -> App:
    app = App("sizes")
    app.stream("events")
    small, all_of_it = app.stream("small", max_event_bytes=limit), app.stream("all")
    jobs = app.queue("jobs")
    every = Rule({"detail": {"text": [{"exists": True}]}}, streams="events")
    app.forward(every, to=all_of_it, name="all")
    app.forward(every, to=jobs, name="jobs")
    twice = Rule(
        every.pattern,
        streams="events",
        paths={"text": "$.detail.text"},
        template='{"text": "<text><text>"}',
    )
    app.forward(twice, to=small, name="small")
    return app


def test_what_one_rule_cannot_take_is_a_dead_letter_of_that_rule_alone() -> None:
    with World(sizes(limit=40)) as world:
        texts = ["a", "b" * 20, "c"]
        world.publish("events", *({"text": text} for text in texts), key="k")
        world.publish("events", {"text": "d"}, headers={"headrace-priority": "high"})
        world.run_until_idle()
        assert [one["text"] for one in world.values("all")] == [*texts, "d"]
        assert [one["text"] for one in world.values("small")] == ["aa", "cc", "dd"]
        assert [one["text"] for one in world.values("jobs")] == texts
        large, urgent = world.dead_letters()
        assert {large.function, urgent.function} == {"_bus.refused.events"}
        assert (large.cause.kind, urgent.cause.kind) == ("TooLarge", "Invalid")
        # Its target would refuse it again.
        assert (large.attempts, urgent.attempts) == (1, 1)
        assert large.cause.message.startswith("the rule `sizes.small` does not take events/0/1:")
        assert urgent.cause.message.startswith("the rule `sizes.jobs` does not take events/0/3:")


def test_a_redrive_puts_an_event_to_the_rule_that_did_not_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_mended: list[bool] = []

    def flawed(rule: Rule) -> Any:
        made = transform_of(rule)
        if made is None or is_mended:
            return made
        return lambda *seen: made(*seen)[1 // len(is_mended) :]

    monkeypatch.setattr("headrace.bus.router.transform_of", flawed)
    with World(sizes(limit=1_000)) as world:
        world.publish("events", {"text": "b" * 20}, key="k", id="e", headers={"a": "1"})
        world.run_until_idle()
        assert [dead.cause.kind for dead in world.dead_letters()] == ["ZeroDivisionError"]
        kept = world.values("all")
        is_mended.append(True)
        world.crash()
        world.run_until_idle()
        world.redrive("_bus.refused.events")
        world.run_until_idle()
        (event,) = world.published("small")
        assert event.value == {"text": "b" * 40}
        assert (event.key, event.id, event.headers) == ("k", "e", {"a": "1"})
        assert event.source == "events"
        assert world.values("all") == kept
        assert world.dead_letters() == []


def test_a_replay_goes_past_what_one_rule_cannot_take() -> None:
    with World(sizes(limit=40)) as world:
        world.publish("events", {"text": "a"}, {"text": "b" * 20}, {"text": "c"})
        world.run_until_idle()
        world.bus_replay("events", "sizes.small", "sizes.all")
        world.run_until_idle()
        assert [one["text"] for one in world.values("small")] == ["aa", "cc"] * 2
        assert len(world.values("all")) == 6
        assert len(world.dead_letters()) == 2
