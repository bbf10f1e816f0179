"""What operators and their browsers are answered, in a `World`: edited letters, times, pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import App, Context, Cron, Event, Http, Retry
from headrace.environment.failpoints import LABELS
from headrace.testing import World

app = App("shop")
orders = app.stream("orders")
sold = app.stream("sold")


@app.function(orders, retry=Retry(attempts=1), output=sold)
def sell(event: Event[Any], context: Context) -> dict[str, Any]:
    if "price" not in event.value:
        raise ValueError("no price")
    context.state.put("edited", event.headers.get("headrace-edited", ""))
    return dict(event.value)


@app.function(Cron("0 7 * * *", tz="Asia/Tokyo"))
def wake(event: Event[Any]) -> None: ...


@app.function(Http("GET", "/shop/{id}"))
def show(event: Event[Any]) -> str:
    return "here"


LETTER = "/-/v1/dead/shop.sell"
AT = "orders/0/0"


@pytest.fixture
def world() -> Iterator[World]:
    with World(app) as found:
        found.publish(orders, {"item": "tea"}, key="k")
        found.publish(orders, {"item": "cup", "price": 1}, key="k")
        found.run_until_idle()
        yield found


def test_an_edited_letter_says_what_it_was_and_who_changed_it(world: World) -> None:
    said = {"position": AT, "value": {"item": "tea", "price": 2}}
    letter = world.ask("POST", f"{LETTER}/edit", said).body
    assert letter["event"]["value"] == said["value"]
    assert letter["original"]["value"] == {"item": "tea"}
    (edit,) = letter["edits"]
    assert edit["by"] == "operator"
    assert edit["was"] == hashlib.sha256(b'{"item":"tea"}').hexdigest()
    page = world.ask("GET", f"/console/dead/shop.sell/{AT}").body.decode()
    assert "by operator" in page
    # What was there first stays, however often it is changed.
    for price in range(20):
        said["value"] = {"price": price}
        letter = world.ask("POST", f"{LETTER}/edit", said).body
    assert letter["original"]["value"] == {"item": "tea"}
    assert letter["edits"][0] == edit
    assert len(letter["edits"]) == 16


def test_a_letter_is_delivered_once_with_its_new_value(world: World) -> None:
    said = {"positions": [AT], "value": {"item": "tea", "price": 2}}
    assert world.ask("POST", f"{LETTER}/redrive", said).body == {"redriven": 1}
    # Who comes second is too late.
    assert world.ask("POST", f"{LETTER}/redrive", said).status == 404
    world.run_until_idle()
    found = world.values(sold)
    assert found == [{"item": "cup", "price": 1}, {"item": "tea", "price": 2}]
    assert str(world.state(sell)["edited"]).endswith(" operator")
    assert world.dead_letters() == []


def test_a_value_that_fails_again_is_a_letter_that_still_says_what_it_was(world: World) -> None:
    world.ask("POST", f"{LETTER}/redrive", {"positions": [AT], "value": {"item": "pot"}})
    world.run_until_idle()
    letter = world.ask("GET", f"{LETTER}/{AT}").body
    assert letter["event"]["value"] == {"item": "pot"}
    assert letter["original"]["value"] == {"item": "tea"}
    assert len(letter["edits"]) == 1


@pytest.mark.parametrize("label", [one for one in LABELS if one.startswith(("commit", "pump"))])
def test_a_host_that_dies_in_a_redrive_with_a_new_value_delivers_it_once(
    label: str, world: World
) -> None:
    said = {"positions": [AT], "value": {"item": "tea", "price": 2}}
    world.ask("POST", f"{LETTER}/redrive", said)
    world.crash(label)
    world.run_until_idle()
    assert world.values(sold).count({"item": "tea", "price": 2}) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("edit", {"position": AT, "value_base64": "/w=="}),
        ("edit", {"position": AT}),
        ("edit", {"position": AT, "value": 1, "value_text": "x"}),
        ("redrive", {"all": True, "value": 1}),
        ("redrive", {"positions": [AT, AT], "value": 1}),
        ("discard", {"positions": [AT], "value": 1}),
    ],
)
def test_a_value_that_cannot_be_changes_nothing(
    path: str, said: dict[str, Any], world: World
) -> None:
    assert world.ask("POST", f"{LETTER}/{path}", said).status == 400
    assert "edits" not in world.ask("GET", f"{LETTER}/{AT}").body


def test_a_schedule_is_shown_in_its_own_zone(world: World) -> None:
    (row,) = world.ask("GET", "/-/v1/schedules").body["schedules"]
    assert row["tz"] == "Asia/Tokyo"
    assert "T07:00:00+09:00" in row["next_local"]
    assert row["next"].endswith("T22:00:00Z")
    page = world.ask("GET", "/console/triggers").body.decode()
    assert "07:00:00+09:00" in page


def test_runs_and_lines_show_their_time_and_calls_link_to_no_stream(world: World) -> None:
    world.ask("GET", "/shop/7")
    (call, *others) = world.ask("GET", "/-/v1/invocations").body["invocations"]
    assert call["first"] == ""
    assert {each["first"] for each in others} == {"orders/0/0", "orders/0/1"}
    page = world.ask("GET", "/console/runs").body.decode()
    assert "_call" not in page
    assert "started (UTC)" in page
    assert page.count("2026-01-01 00:00:0") >= len(others)


BROWSER = {"accept": "text/html,application/xhtml+xml"}


def test_a_browser_is_led_to_the_console_and_a_program_is_not(world: World) -> None:
    found = world.ask("GET", "/", **BROWSER)
    assert (found.status, found.headers["location"]) == (303, "/console")
    assert world.ask("GET", "/").status == 404
    assert world.ask("GET", "/-/v1").body["name"] == "headrace"


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/streams/orders", "the platform's own path is `/-/v1/streams/orders`"),
        ("POST", "/streams/orders", "the platform's own path is `/-/v1/streams/orders`"),
        ("POST", "/functions/shop.sell/pause", "own path is `/-/v1/functions/shop.sell/pause`"),
        ("GET", "/nothing", "`GET /-/v1` lists the platform's own paths"),
        ("GET", "/%ff/x", "`GET /-/v1` lists the platform's own paths"),
    ],
)
def test_a_path_without_the_prefix_is_not_there_and_says_which_is(
    world: World, method: str, path: str, said: str
) -> None:
    answer = world.ask(method, path)
    assert answer.status == 404
    assert said in answer.body["detail"]


@pytest.mark.parametrize("path", ["/nothing", "/-/v1/streams/none/records", "/console/nothing"])
def test_what_is_not_there_is_a_page_for_a_browser_and_a_problem_for_a_program(
    path: str, world: World
) -> None:
    page = world.ask("GET", path, **BROWSER)
    assert page.status == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "content-security-policy" in page.headers
    if not path.startswith("/console"):
        found = world.ask("GET", path)
        assert found.headers["content-type"] == "application/problem+json"


def test_errors_of_authors_routes_stay_problems(world: World) -> None:
    found = world.ask("GET", "/shop/%FF", **BROWSER)
    assert found.headers["content-type"] == "application/problem+json"


def test_a_page_shows_what_was_asked_for_as_text(world: World) -> None:
    page = world.ask("GET", "/<script>alert(1)", **BROWSER).body.decode()
    assert "<script>" not in page
    assert json.dumps("shop") not in page
