"""Routes and webhooks in a world: answered as by a real node, on virtual time, by a host that dies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import App, Bearer, Context, Event, Http, PerClient, Reply, Request, Webhook
from headrace.environment.failpoints import LABELS
from headrace.errors import Unavailable
from headrace.model.errors import Invalid, Misuse
from headrace.testing import World
from headrace.webhooks import StandardWebhooks

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
SECRETS = {"HOOK": f"whsec_{SECRET}"}


def desk() -> App:
    """Orders over HTTP."""
    app = App("desk")
    placed = app.stream("placed")

    @app.function(Http("PUT", "/desk/{number:int}"), publishes=[placed])
    def place(event: Event[dict[str, Any]], context: Context) -> Reply:
        number = Request.of(event).params["number"]
        count = context.state.update(f"order/{number}", lambda known: known + 1, default=0)
        context.publish(placed, event.value, key=str(number))
        return Reply({"count": count}, status=201)

    @app.function(Http("POST", "/desk/later", mode="async"))
    def later(event: Event[Any], context: Context) -> None:
        context.state.update("later", lambda known: known + 1, default=0)

    @app.function(Http("GET", "/desk/steps", mode="live"))
    def steps(event: Event[Any]) -> Iterator[int]:
        yield from range(3)

    @app.function(Http("GET", "/desk/breaks", mode="live"))
    def breaks(event: Event[Any], context: Context) -> Iterator[int]:
        context.state.put("broken", True)
        yield 1
        raise ValueError("poison")

    @app.function(Http("GET", "/desk/often", rate=PerClient(1, per="1m")))
    def often(event: Event[Any]) -> str:
        return "yes"

    @app.function(Http("GET", "/desk/guarded", auth=Bearer("desk:read")))
    def guarded(event: Event[Any]) -> str:
        return "in"

    @app.function(Webhook("/desk/hook", signature=StandardWebhooks(secret="HOOK")))
    def hook(event: Event[Any], context: Context) -> None:
        context.state.update("hooks", lambda known: known + 1, default=0)

    return app


def test_a_route_is_asked_and_its_effects_are_there() -> None:
    with World(desk(), secrets=SECRETS) as world:
        answer = world.ask("PUT", "/desk/7?by=ada", {"item": "tea"})
        assert (answer.status, answer.body) == (201, {"count": 1})
        assert world.values("placed") == [{"item": "tea"}]
        assert world.ask("PUT", "/desk/seven", {}).status == 400
        assert world.ask("GET", "/nowhere").status == 404
        assert world.ask("GET", "/desk/steps").body == b"0\n1\n2\n"
        with pytest.raises(Invalid, match="not a path"):
            world.ask("GET", "desk/7")


def test_a_live_answer_that_breaks_off_leaves_nothing() -> None:
    with World(desk(), secrets=SECRETS) as world:
        with pytest.raises(Unavailable, match="poison"):
            world.ask("GET", "/desk/breaks")
        assert "broken" not in world.state("desk.breaks")


@pytest.mark.parametrize("label", sorted(each for each in LABELS if each.startswith("commit:")))
def test_a_request_repeated_after_a_crash_happens_once(label: str) -> None:
    with World(desk(), secrets=SECRETS) as world:
        world.crash(at=label)
        answered = None
        while answered is None:
            try:
                answered = world.ask("PUT", "/desk/7", {"item": "tea"}, idempotency_key="k")
            except Unavailable:
                continue
        again = world.ask("PUT", "/desk/7", {"item": "tea"}, idempotency_key="k")
        assert answered.body == again.body == {"count": 1}
        assert world.state("desk.place")["order/7"] == 1
        assert world.values("placed") == [{"item": "tea"}]


def test_a_host_that_dies_before_the_commit_leaves_nothing_but_a_client_without_an_answer() -> None:
    with World(desk(), secrets=SECRETS) as world:
        world.deliver_twice()
        with pytest.raises(Unavailable, match="idempotency_key"):
            world.ask("PUT", "/desk/7", {"item": "tea"})
        assert world.values("placed") == []
        assert world.ask("PUT", "/desk/7", {"item": "tea"}).body == {"count": 1}


def test_a_deferred_request_is_kept_and_reported() -> None:
    with World(desk(), secrets=SECRETS) as world:
        taken = world.ask("POST", "/desk/later", {})
        assert taken.status == 202
        world.crash()
        world.run_until_idle()
        assert world.state("desk.later")["later"] == 1
        assert world.ask("GET", taken.headers["location"]).body["status"] == "committed"


def test_rates_and_tokens_go_by_the_worlds_clock() -> None:
    with World(desk(), secrets=SECRETS) as world:
        assert world.ask("GET", "/desk/often").status == 200
        assert world.ask("GET", "/desk/often").status == 429
        world.advance("2m")
        assert world.ask("GET", "/desk/often").status == 200
        assert world.ask("GET", "/desk/guarded").status == 401
        made = world.ask("POST", "/-/v1/tokens", {"name": "till", "scopes": ["desk:read"]}).body
        bearer = f"Bearer {made['token']}"
        assert world.ask("GET", "/desk/guarded", authorization=bearer).body == "in"


def signed(world: World, body: bytes, name: str) -> dict[str, str]:
    """The headers of a message as its sender would sign it now."""
    at = str(int(world.now.timestamp()))
    signature = hmac.new(base64.b64decode(SECRET), f"{name}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook_id": name,
        "webhook_timestamp": at,
        "webhook_signature": "v1," + base64.b64encode(signature.digest()).decode(),
    }


def test_a_webhook_counts_once_and_not_when_it_is_old() -> None:
    with World(desk(), secrets=SECRETS) as world:
        body = json.dumps({"paid": 1}).encode()
        fresh = signed(world, body, "m1")
        assert world.ask("POST", "/desk/hook", body, **fresh).status == 202
        assert world.ask("POST", "/desk/hook", body, **fresh).body["duplicate"]
        assert world.ask("POST", "/desk/hook", b"{}", **fresh).status == 401
        late = signed(world, body, "m2")
        world.advance("10m")
        assert world.ask("POST", "/desk/hook", body, **late).status == 401
        world.run_until_idle()
        assert world.state("desk.hook")["hooks"] == 1


def test_a_missing_secret_is_reported_as_a_node_does() -> None:
    with pytest.raises(Misuse, match=r"`HOOK` for `desk\.hook`"), World(desk()):
        pass
