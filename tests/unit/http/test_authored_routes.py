"""Whose a path is, before and after apps change."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Http
from headrace.http.pipeline.app_routes import MAX_FOUND, RouteTable, Target
from headrace.http.pipeline.route_pipeline import RoutePipeline
from headrace.http.pipeline.step import RoutedRequest, RouteEnd
from headrace.http.problem_details import NotAllowed
from headrace.http.response import Response
from headrace.model.function import AppSpec


class Nothing(RouteEnd):
    async def run(self, _: RoutedRequest) -> Response:
        return Response(204, b"")


def table_of(apps: dict[str, AppSpec]) -> RouteTable:
    def compiled(target: Target) -> RoutePipeline:
        return RoutePipeline((), Nothing(), pattern=target.name)

    return RouteTable(apps, compiled)


def app_with(name: str, *routes: Http) -> AppSpec:
    app = App(name)

    def handler(event: Any) -> None: ...

    app.function(*routes)(handler)
    return app.spec()


def test_a_path_that_was_nobodys_is_found_once_an_app_declares_it() -> None:
    apps: dict[str, AppSpec] = {}
    table = table_of(apps)
    assert table.find("GET", "/teas", None) is None
    apps["shop"] = app_with("shop", Http("GET", "/teas"))
    for _ in range(2):
        found = table.find("GET", "/teas", None)
        assert found is not None
        assert found.target.name == "/teas"
    apps["shop"] = app_with("shop", Http("GET", "/coffees"))
    assert table.find("GET", "/teas", None) is None
    del apps["shop"]
    assert table.find("GET", "/coffees", None) is None


def test_the_root_belongs_to_the_authors_and_the_platforms_words_do_not() -> None:
    routes = (Http("GET", "/"), Http("GET", "/streams"), Http("GET", "/{slug}"))
    table = table_of({"shop": app_with("shop", *routes, Http("GET", "/{rest:path}"))})
    for path, pattern in (
        ("/", "/"),
        ("/streams", "/streams"),
        ("/functions", "/{slug}"),
        ("/a%2Fb", "/{slug}"),
        ("/runs/7", "/{rest:path}"),
    ):
        found = table.find("GET", path, None)
        assert found is not None
        assert found.target.name == pattern
    for path in ("/healthz", "/%68ealthz", "/console/streams", "/-/v1/streams", "/%2D/v1/x", "/-"):
        assert table.find("GET", path, None) is None
        assert not table.is_authored(path)


def test_what_stands_in_the_braces_is_each_requests_own() -> None:
    table = table_of({"shop": app_with("shop", Http("GET", "/teas/{kind}"))})
    for kind in ("green", "black", "green"):
        found = table.find("GET", f"/teas/{kind}", None)
        assert found is not None
        assert found.params == {"kind": kind}


def test_a_method_that_does_nothing_is_refused_every_time() -> None:
    table = table_of({"shop": app_with("shop", Http("GET", "/teas"))})
    for _ in range(2):
        with pytest.raises(NotAllowed, match="use GET"):
            table.find("PUT", "/teas", None)


def test_a_path_that_can_be_asked_for_can_be_asked_after_with_head() -> None:
    table = table_of(
        {"shop": app_with("shop", Http(("GET", "POST"), "/teas"), Http("PUT", "/one"))}
    )
    with pytest.raises(NotAllowed) as many:
        table.find("PATCH", "/teas", None)
    assert many.value.allowed == "GET, HEAD, POST"
    with pytest.raises(NotAllowed) as one:
        table.find("GET", "/one", None)
    assert one.value.allowed == "PUT"


@pytest.mark.parametrize("path", ["/v1/users:batch", "/v1/users%3Abatch", "/%761/users%3abatch"])
def test_a_literal_is_found_however_it_is_percent_encoded(path: str) -> None:
    table = table_of({"shop": app_with("shop", Http("POST", "/v1/users:batch"))})
    found = table.find("POST", path, None)
    assert found is not None
    assert found.target.name == "/v1/users:batch"


@pytest.mark.parametrize("path", ["/v1%2Fusers:batch", "/v1/users%253Abatch", "/%ff/users:batch"])
def test_what_only_looks_like_a_literal_once_it_is_unquoted_is_another_path(path: str) -> None:
    table = table_of({"shop": app_with("shop", Http("POST", "/v1/users:batch"))})
    assert table.find("POST", path, None) is None


def test_more_paths_than_are_remembered_are_answered_alike() -> None:
    table = table_of({"shop": app_with("shop", Http("GET", "/teas"))})
    for number in range(MAX_FOUND * 2):
        assert table.find("GET", f"/nobody/{number}", None) is None
    assert table.find("GET", "/teas", None) is not None
