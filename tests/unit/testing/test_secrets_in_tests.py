"""Secrets in a test: in a whole world, and of a handler that is called by hand."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Context, Retry
from headrace.bus import HttpTarget, Rule
from headrace.errors import Misuse, Refused
from headrace.testing import World, context
from headrace.webhooks import Secret

KEY = "sk_test_1234"


def shop() -> App:
    app = App("shop", secrets=["BANK"])
    orders, paid = app.stream("orders"), app.stream("paid")
    held: dict[str, str] = {}

    @app.init
    def open_bank() -> None:
        held["bank"] = app.secret("BANK")

    @app.function(orders, output=paid, secrets=["STRIPE"], retry=Retry(attempts=1))
    def charge(event: Any, context: Context) -> Any:
        if event.value == "fail":
            raise ValueError(f"refused: {context.secret('STRIPE')}")
        if event.value == "say":
            context.fail(event, f"because of {context.secret('STRIPE')}")
            return None
        return [context.secret("STRIPE"), context.secret("BANK"), held["bank"]]

    @app.function()
    def peek(event: Any, context: Context) -> str:
        return context.secret("STRIPE")

    return app


def test_a_world_hands_out_what_is_declared_and_blots_it_out_of_dead_letters() -> None:
    with World(shop(), secrets={"BANK": "b-key", "STRIPE": KEY}) as world:
        world.publish("orders", "pay", "fail", "say")
        world.run_until_idle()
        assert world.values("paid") == [KEY, "b-key", "b-key"]
        messages = [letter.cause.message for letter in world.dead_letters()]
        assert messages == ["refused: [secret STRIPE]", "because of [secret STRIPE]"]
        assert KEY not in repr(world.dead_letters())
        refused = world.ask("POST", "/-/v1/functions/shop.peek", {})
        assert "does not declare the secret `STRIPE`" in refused.body["detail"]


def test_a_world_without_a_secret_is_refused_by_name() -> None:
    with (
        pytest.raises(
            Misuse, match=r"`STRIPE` for `shop.charge`; write .*\{'BANK': \.\.\., 'STRIPE'"
        ),
        World(shop(), secrets={"BANK": "b"}),
    ):
        pass


def test_a_secret_that_no_app_declares_is_refused() -> None:
    secrets = {"BANK": "b", "STRIPE": KEY, "STRIPES": KEY}
    with (
        pytest.raises(
            Misuse, match=r"no app here declares a secret `STRIPES` \(did you mean `STRIPE`"
        ),
        World(shop(), secrets=secrets),
    ):
        pass


def test_a_target_is_sent_a_secret_that_its_spec_does_not_hold() -> None:
    app = App("shop")
    bus = app.bus("events")
    to = HttpTarget("https://example.com/in", headers={"Authorization": Secret("PARTNER")})
    app.forward(Rule({"stream": ["events"]}, bus=bus), to=to, name="report")
    with World(app, secrets={"PARTNER": f"Bearer {KEY}"}) as world:
        world.publish(bus, {"a": 1})
        world.run_until_idle()
        assert [sent.headers["authorization"] for sent in world.posted] == [f"Bearer {KEY}"]
        assert KEY not in repr(app.spec())


def test_a_handler_by_hand_is_given_secrets_by_its_context() -> None:
    app = shop()
    peek = app.functions["shop.peek"].handler
    assert peek(None, context(secrets={"STRIPE": KEY})) == KEY
    with pytest.raises(Misuse, match=r"context\(secrets="):
        peek(None, context())
    with pytest.raises(Refused, match="does not declare"):
        peek(None, context(app=app, function="shop.peek", secrets={"STRIPE": KEY}))
    charge = "shop.charge"
    assert peek(None, context(app=app, function=charge, secrets={"STRIPE": KEY})) == KEY


def test_an_apps_secret_is_refused_while_the_module_is_imported_and_where_it_is_not_declared() -> (
    None
):
    app = App("shop", secrets=["BANK"])
    with pytest.raises(Misuse, match="while the module is imported"):
        app.secret("BANK")
    with pytest.raises(Refused, match="did you mean `BANK`"):
        app.secret("BANKS")


def test_names_of_secrets_are_checked_where_they_are_written() -> None:
    with pytest.raises(Misuse, match="takes a list"):
        App("shop", secrets="STRIPE")
    with pytest.raises(Misuse, match="never the secret itself") as refused:
        App("shop", secrets=[KEY])
    assert KEY not in str(refused.value)
    app = App("shop", secrets=["A", Secret("B"), "A"])
    app.function(name="f", secrets=["C"])(lambda event: None)
    assert app.spec().functions[0].secrets == ("A", "B", "C")
    assert app.spec().secrets == ("A", "B")
