"""Whoever looks at many rows lets others come in between, at every page and list there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from headrace import App, Context, DeadLetter, Event, Every, Http, ParkKey, Queue, Retry
from headrace.bus import Rule
from headrace.environment.time_slices import Slices
from headrace.http.server.route_resolver import route_table
from headrace.testing import World

MANY: Final = 30
app = App("many")
filled = app.stream("filled")


def fail(event: Event[int]) -> None:
    raise ValueError("no")


def nothing(event: Event[Any]) -> None: ...


app.function(filled, name="dead", retry=Retry(attempts=1), on_failure=DeadLetter())(fail)
app.function(filled, name="parked", retry=Retry(attempts=1), on_failure=ParkKey())(fail)


@app.function(filled, name="keeps")
def keep(event: Event[int], context: Context) -> None:
    context.state.put(f"key-{event.value}", event.value)


for number in range(MANY):
    app.store(f"store_{number}")
jobs: Queue[Any] = app.queue("jobs", outside=True)
for number in range(MANY):
    app.function(app.stream(f"s_{number}"), name=f"f_{number}")(nothing)
    app.function(Every(86_400), name=f"t_{number}")(nothing)
    app.function(app.queue(f"q_{number}"), name=f"w_{number}")(nothing)
    app.function(Http("POST", f"/r/{number}"), name=f"h_{number}")(nothing)
    app.forward(
        Rule({"detail-type": [f"t{number}"]}, streams=[filled]),
        to=app.stream(f"o_{number}"),
        name=f"o_{number}",
    )

LISTS: Final = {
    "/-/v1/streams": "/-/v1/streams",
    "/-/v1/streams/{stream}/records": "/-/v1/streams/filled/records",
    "/-/v1/functions": "/-/v1/functions",
    "/-/v1/map": "/-/v1/map",
    "/-/v1/dead": "/-/v1/dead",
    "/-/v1/parked": "/-/v1/parked",
    "/-/v1/lag": "/-/v1/lag",
    "/-/v1/sources": "/-/v1/sources",
    "/-/v1/invocations": "/-/v1/invocations",
    "/-/v1/logs": "/-/v1/logs",
    "/-/v1/state/{app}": "/-/v1/state/many",
    "/-/v1/state/{app}/{store}": "/-/v1/state/many/many.keeps",
    "/metrics": "/metrics",
    "/-/v1/schedules": "/-/v1/schedules",
    "/-/v1/queues": "/-/v1/queues",
    "/-/v1/queues/{queue}/messages": "/-/v1/queues/jobs/messages?limit=100",
    "/openapi.json": "/openapi.json",
    "/console": "/console",
    "/console/streams": "/console/streams",
    "/console/streams/{stream}": "/console/streams/filled",
    "/console/triggers": "/console/triggers",
    "/console/queues": "/console/queues",
    "/console/failures": "/console/failures",
    "/console/runs": "/console/runs",
    "/console/functions/{function}": "/console/functions/many.dead",
}
"""Each pattern with a path that tells of `MANY` rows."""
FEW: Final = {
    "/-/v1/openapi.json": "made once",
    "/": "a redirection",
    "/-/v1": "what there is to ask for",
    "/healthz": "one word",
    "/readyz": "what is wrong with the node",
    "/-/v1/streams/{stream}": "one stream",
    "/-/v1/functions/{function}": "one function",
    "/-/v1/queues/{queue}": "one queue",
    "/-/v1/dead/{function}/{stream}/{partition}/{offset}": "one letter",
    "/-/v1/explain/{stream}/{partition}/{offset}": "one event",
    "/-/v1/requests/{request}": "one request",
    "/-/v1/state/{app}/{store}/{key}": "one key",
    "/-/v1/schedules/{function}": "one function's",
    "/-/v1/bus/replays/{name}": "one replay",
    "/console/events/{stream}/{partition}/{offset}": "one event",
    "/console/dead/{function}/{stream}/{partition}/{offset}": "one letter",
    "/console/enter/{code}": "a redirection",
    "/-/v1/bus/replays": "goes the way of the lists, and has no rows here",
    "/-/v1/tokens": "goes the way of the lists, and has no rows here",
    "/-/v1/instances": "goes the way of the lists, and has no rows in a world",
}
"""What is not about many rows, or cannot be here."""


def test_no_page_and_no_list_is_left_out() -> None:
    patterns = {pattern for method, pattern in route_table().patterns() if method == "GET"}
    assert patterns == {*LISTS, *FEW}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(app) as world:
        world.publish(filled, *range(MANY), key=str)
        world.publish(jobs, *range(MANY))
        world.run_until_idle("1h")
        for number in range(MANY):
            world._lives.node.services.runs.write(
                time=1, function="many.dead", instance="", key="", level="info", text=str(number)
            )
        yield world


@pytest.mark.parametrize("pattern", LISTS)
def test_others_have_their_turn_between_any_two_rows(
    world: World, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def step(_: Slices) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(Slices, "step", step)
    answer = world.ask("GET", LISTS[pattern])
    assert answer.status == 200
    assert asked >= MANY
