"""Silences and missing partners on virtual time: reported once, and again only after activity."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Event
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.sources import Missing, Silence
from headrace.sources.silence_rules import Partners, Quiet
from headrace.testing import World


def watching(*triggers: Any) -> App:
    app = App("watch")
    app.stream("orders", partitions=2)
    app.stream("paid", partitions=2)
    reported = app.stream("reported")

    @app.function(triggers[0], *triggers[1:], output=reported)  # type: ignore[untyped-decorator]
    def report(event: Event[Any]) -> Any:
        return {"of": (event.value["key"], event.value["last"])}

    return app


def reported(world: World) -> list[list[Any]]:
    return [value["of"] for value in world.values("reported")]


def test_silence_is_reported_once_and_again_only_after_activity() -> None:
    with World(watching(Silence("orders", "10m"))) as world:
        world.advance("2h")
        assert reported(world) == [[None, None]]
        world.publish("orders", 1)
        world.advance("9m")
        assert len(reported(world)) == 1
        world.advance("2h")
        assert reported(world)[1:] == [[None, "orders/1/0"]]


def test_a_stream_that_is_used_in_time_is_never_called_silent() -> None:
    with World(watching(Silence("orders", "10m"))) as world:
        for number in range(30):
            world.publish("orders", number, key=str(number))
            world.advance("9m")
            if number % 7 == 0:
                world.crash()
        assert reported(world) == []


def test_each_key_has_its_own_silence() -> None:
    with World(watching(Silence("orders", "10m", per_key=True))) as world:
        world.publish("orders", 1, key="ada")
        world.advance("6m")
        world.publish("orders", 1, key="bob")
        world.advance("5m")
        assert [key for key, _ in reported(world)] == ["ada"]
        world.publish("orders", 1, key="ada")
        world.advance("20m")
        assert [key for key, _ in reported(world)] == ["ada", "bob", "ada"]


def test_a_missing_partner_is_reported_once() -> None:
    with World(watching(Missing("orders", "paid", "5m"))) as world:
        world.publish("paid", 1, key="early")
        world.publish("orders", 1, key="early")
        world.publish("orders", 1, key="ada")
        world.publish("orders", 1, key="bob")
        world.advance("4m")
        world.publish("paid", 1, key="bob")
        assert reported(world) == []
        world.advance("2m")
        world.publish("paid", 1, key="ada")
        world.advance("1h")
        assert [key for key, _ in reported(world)] == ["ada"]


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "pump", "claim"))]
)
def test_a_host_that_dies_between_two_steps_neither_loses_nor_doubles_a_silence(label: str) -> None:
    triggers = Silence("orders", "10m", per_key=True), Missing("orders", "paid", "5m")
    with World(watching(*triggers)) as world:
        for number, key in enumerate("abcdef"):
            world.publish("orders", number, key=key)
        for passes in (1, 2, 3):
            world.crash(label, passes)
            world.advance("4m")
        world.advance("1h")
        assert sorted(key for key, _ in reported(world)) == sorted("abcdef" * 2)


def test_what_happened_while_nobody_was_up_is_reported_from_the_log() -> None:
    quiet = Quiet(100, begin=None)
    quiet.see("k", 10, "a")
    quiet.see("k", 500, "b")
    assert [(case.due, case.place) for case in quiet.due(550)] == [(110, "a")]
    assert [(case.due, case.place) for case in quiet.due(600)] == [(600, "b")]
    assert quiet.due(10_000) == []


def test_a_partner_serves_every_record_near_it_and_none_that_is_too_far() -> None:
    partners = Partners(100, since=0)
    partners.see("k", 10, "first")
    partners.see("k", 60, "second")
    partners.see_partner("k", 115, "p")
    assert [case.place for case in partners.due(1_000)] == ["first"]


def test_another_apps_private_stream_cannot_be_watched() -> None:
    other = App("other")
    other.stream("secret", private=True)
    with World(other, watching(Silence("secret", "1m"))) as world:
        world._lives.loop.run_for(1)
        assert any("private" in why for why in world._lives.node.supervisor.halted.values())
        world._lives.failures.clear()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: Silence("", 1), "is not a stream"),
        (lambda: Silence("orders", 0), "out of range"),
        (lambda: Missing("orders", "orders", 1), "with itself"),
        (lambda: Missing("orders", "paid", "x"), "write seconds"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(write: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        write()


def test_an_empty_key_is_a_key() -> None:
    app = App("shop")
    orders, seen = app.stream("orders"), app.stream("seen")

    @app.function(Silence("orders", after=60, per_key=True), output=seen)
    def quiet(event: Event[Any]) -> Any:
        return {"event": event.key, "value": event.value["key"]}

    @app.function(Silence("orders", after=600), output=seen)
    def all_quiet(event: Event[Any]) -> Any:
        return {"event": event.key, "value": event.value["key"]}

    with World(app) as world:
        world.publish(orders, 1, key="")
        world.advance("5m")
        assert world.values(seen) == [{"event": "", "value": ""}]
        world.advance("10m")
        assert world.values(seen)[1:] == [{"event": None, "value": None}]
