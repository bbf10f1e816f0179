"""Which requests the fast path takes: those for which each step of the route says that nothing waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from headrace import App, Bearer, Cors, Event, Http, Legacy, PerClient
from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.context import ApiContext
from headrace.http.metrics import Metrics
from headrace.http.pipeline import route_compiler
from headrace.http.pipeline.app_routes import Target
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.pipeline.route_pipeline import RoutePipeline
from headrace.http.pipeline.step import HeadView, RoutedRequest, RouteStep
from headrace.http.server import route_resolver
from headrace.http.server.fast_path import FastPath
from headrace.http.server.route_resolver import RouteResolver
from headrace.model.triggers.http import Answer
from headrace.security.access import Peer
from headrace.testing import World

HERE = Peer("127.0.0.1", neighbour=True)


class Which(msgspec.Struct):
    size: int = 0


class Asked(msgspec.Struct):
    """What the fast path does for one head, in plain values."""

    is_fast: bool
    query: Mapping[str, Any]


def planned(
    world: World,
    path: str = "/tea",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    peer: Peer = HERE,
) -> Asked:
    admission = Admission()
    context = ApiContext(
        services=replace(world._lives.node.services, access="local"),
        admission=admission,
        metrics=Metrics(),
        tasks=Tasks(lambda _, error: None),
    )
    fields = [(b"host", b"localhost")]
    fields += [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
    target, _, query = path.partition("?")
    head = RequestHead(method, target, query.encode(), fields, dict(fields))
    plan = FastPath(context, RouteResolver(context)).plan(head, peer)
    return Asked(plan.end is not None, plan.routed.query)


def app_of(route: Http) -> App:
    app = App("shop")

    @app.function(route)
    def tea(event: Event[Any]) -> Any:
        return event.value

    return app


def test_a_call_that_needs_only_its_function_is_fast() -> None:
    with World(app_of(Http(("GET", "POST"), "/tea"))) as world:
        assert planned(world).is_fast
        assert planned(world, method="GET").is_fast
        assert planned(world, "/-/v1/functions/shop.tea").is_fast


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("HEAD", "/tea", {}),
        ("OPTIONS", "/tea", {}),
        ("DELETE", "/tea", {}),
        ("POST", "/tea", {"idempotency-key": "k"}),
        ("POST", "/tea", {"content-encoding": "gzip"}),
        ("POST", "/tea", {"origin": "https://other.test"}),
        ("POST", "/-/v1/functions/shop.tea", {"idempotency-key": "k"}),
        ("POST", "/-/v1/functions/shop.tea", {"content-encoding": "gzip"}),
        ("POST", "/-/v1/functions/shop.tea", {"origin": "http://localhost"}),
        ("POST", "/-/v1/functions/shop.tea", {"x-forwarded-for": "1.2.3.4"}),
        ("POST", "/-/v1/functions/shop.tea?timeout=soon", {}),
        ("POST", "/-/v1/functions/shop.coffee", {}),
        ("GET", "/-/v1/functions", {}),
        ("POST", "/nothing", {}),
    ],
)
def test_what_waits_or_is_refused_is_not(method: str, path: str, headers: dict[str, str]) -> None:
    with World(app_of(Http(("GET", "POST"), "/tea"))) as world:
        assert not planned(world, path, method, headers).is_fast


def test_a_caller_that_must_prove_itself_is_not() -> None:
    with World(app_of(Http("POST", "/tea"))) as world:
        assert planned(world, "/-/v1/functions/shop.tea").is_fast
        assert not planned(world, "/-/v1/functions/shop.tea", peer=Peer("10.0.0.1")).is_fast
        assert planned(world, peer=Peer("10.0.0.1")).is_fast


def test_a_query_is_bound_once_for_its_head() -> None:
    with World(app_of(Http("GET", "/tea", query=Which))) as world:
        assert planned(world, "/tea?size=3", "GET") == Asked(True, {"size": 3})
        assert not planned(world, "/tea?size=large", "GET").is_fast


TAKES = {
    "method": ("POST", "PUT"),
    "path": "/tea",
    "body": Which,
    "query": Which,
    "cors": Cors("https://other.test"),
    "max_bytes": 10,
    "timeout": 1.0,
    "headers": "x-shop",
    "responses": {200: Which},
    "codec": "bytes",
    "answers": {200: Answer()},
    "any_status": False,
    "schema": {"type": "integer"},
    "query_schema": {"type": "object"},
    "dedupe": 60.0,
}
"""Options of a route that the fast path keeps."""
STEPS_ASIDE = {
    "mode": "async",
    "auth": Bearer("tea"),
    "rate": PerClient(1),
    "legacy": Legacy("http://old.test"),
}
"""Options for which it steps aside."""
NEEDS_MODE = {"key"}
"""Options of routes that are not `sync`."""


def test_every_option_of_a_route_is_in_a_table() -> None:
    assert {*TAKES, *STEPS_ASIDE, *NEEDS_MODE} == set(Http.__struct_fields__)


@pytest.mark.parametrize("option", [*TAKES, *STEPS_ASIDE])
def test_the_fast_path_steps_aside_for_options_that_wait(option: str) -> None:
    given: dict[str, Any] = {"method": "POST", "path": "/tea"}
    given[option] = (TAKES | STEPS_ASIDE)[option]
    with World(app_of(Http(**given))) as world:
        assert planned(world).is_fast == (option in TAKES)


class Remember(RouteStep):
    """An option that somebody adds, and of which the fast path knows nothing."""

    seen: list[str]

    def __init__(self) -> None:
        self.seen = []

    async def run(self, routed: RoutedRequest) -> None:
        self.seen.append(routed.request.path)


class RememberMarked(Remember):
    """The same for requests with a header."""

    def idle(self, head: HeadView) -> bool:
        return b"x-mark" not in head.headers


def added(monkeypatch: pytest.MonkeyPatch, step: RouteStep) -> None:
    """Add an option to every author's route."""
    compile_route = route_compiler.compile_route

    def compiled(context: ApiContext, target: Target) -> RoutePipeline:
        found = compile_route(context, target)
        return RoutePipeline(
            (step, *found._steps), found.end, pattern=found.pattern, owner=found.owner
        )

    monkeypatch.setattr(route_resolver, "compile_route", compiled)


def test_the_fast_path_steps_aside_for_an_option_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added(monkeypatch, step := Remember())
    with World(app_of(Http("POST", "/tea"))) as world:
        assert not planned(world).is_fast
        assert world.ask("POST", "/tea", 1).body == 1
    assert step.seen == ["/tea"]


def test_it_takes_the_requests_for_which_that_option_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added(monkeypatch, step := RememberMarked())
    with World(app_of(Http("POST", "/tea"))) as world:
        assert planned(world).is_fast
        assert not planned(world, headers={"x-mark": "1"}).is_fast
        assert world.ask("POST", "/tea", 1).body == 1
    assert step.seen == []
