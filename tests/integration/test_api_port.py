"""A node whose own paths have a port of their own: what is where, and that commands find it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.http.server.route_resolver import PathSet, route_table
from headrace.testing import serving
from headrace.testing.served import Served, ask

APP = """
from typing import Any
from headrace import App, Event, Http

app = App("shop")


@app.function(Http("GET", "/{rest:path}"))
def show(event: Event[Any]) -> str:
    return "the app's"


@app.function(Http("POST", "/orders", mode="async"))
def sell(event: Event[Any]) -> None: ...
"""
OWN = (
    "/-/v1",
    "/-/v1/streams",
    "/-/v1/openapi.json",
    "/-/v1/requests/x-0-0-y",
    "/console",
    "/console/enter/0",
    "/metrics",
)
SHARED = ("/healthz", "/readyz", "/openapi.json")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("apart")
    (folder / "app.py").write_text(APP)
    with serving(folder / "app.py", folder / "data", environ={"HEADRACE_API_PORT": "0"}) as found:
        yield found


@pytest.mark.parametrize("path", OWN)
def test_the_platforms_own_paths_are_at_their_port_and_nowhere_else(
    node: Served, path: str
) -> None:
    shown = {"authorization": f"Bearer {node.key}"}
    assert ask("GET", node.url + path, **shown).status == 404
    expected = {"/-/v1/requests/x-0-0-y": 404, "/console/enter/0": 401}.get(path, 200)
    assert ask("GET", node.api_url + path, **shown).status == expected


def test_the_apps_routes_are_at_theirs_and_nowhere_else(node: Served) -> None:
    assert ask("GET", f"{node.url}/any/thing").body == "the app's"
    shown = {"authorization": f"Bearer {node.key}"}
    assert ask("GET", f"{node.api_url}/any/thing", **shown).status == 404
    assert ask("POST", f"{node.api_url}/orders", {}, **shown).status == 404


@pytest.mark.parametrize("path", SHARED)
def test_health_and_the_routes_document_are_at_both(node: Served, path: str) -> None:
    shown = {"authorization": f"Bearer {node.key}"}
    for url in (node.url, node.api_url):
        assert ask("GET", url + path, **shown).status == 200


def test_a_kept_request_is_not_told_an_address_that_its_client_may_not_reach(node: Served) -> None:
    answer = ask("POST", f"{node.url}/orders", {})
    assert (answer.status, answer.body) == (202, {"accepted": True, "duplicate": False})
    assert "location" not in answer.headers


def test_commands_find_the_port_of_the_api(node: Served) -> None:
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    for words, said in ((["list"], "shop.sell"), (["export", "openapi"], "/orders")):
        command = [sys.executable, "-m", "headrace.cli.main", *words, "--data", str(node.data)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert said in done.stdout


def test_a_port_that_is_taken_is_named_by_its_option(node: Served, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    taken = node.api_url.rpartition(":")[2]
    with (
        pytest.raises(AssertionError, match="choose another port with `--api-port`"),
        serving(tmp_path / "app.py", tmp_path / "data", environ={"HEADRACE_API_PORT": taken}),
    ):
        pass


def test_no_path_is_forgotten() -> None:
    routes, everything = route_table(PathSet.ROUTES), route_table()
    assert set(routes.patterns()) == {("GET", path) for path in SHARED}
    assert set(route_table(PathSet.API).patterns()) == set(everything.patterns())
