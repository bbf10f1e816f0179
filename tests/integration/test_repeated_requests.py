"""An `Idempotency-Key` on a real node: one request, one effect, one answer, and no other request's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import served, start, wait_for

from headrace.testing.served import Served, ServedResponse, ask

APP = """
from __future__ import annotations

import time
from typing import Any

from headrace import *

app = App("desk")
counts = app.store("counts", int, default=0)


def count(context, what):
    context.store(counts)[what] += 1
    return context.store(counts)[what]


@app.function(Http("POST", "/orders/{id}"))
def place(event: Event[Any], context: Context):
    return {"placed": count(context, "placed"), "id": Request.of(event).params["id"]}


@app.function(Http("POST", "/slow"))
def slow(event: Event[Any], context: Context):
    print("begun", flush=True)
    time.sleep(2)
    return count(context, "slow")


@app.function(Http("POST", "/later", mode="async"))
def later(event: Event[Any], context: Context):
    count(context, "later")
"""

REFUSED = (422, "key-reused")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("repeated"), APP) as node:
        yield node


def told(answer: ServedResponse) -> tuple[int, Any]:
    return answer.status, answer.body["code"]


def test_a_key_is_good_for_one_request_only(node: Served) -> None:
    first = node.ask("POST", "/orders/1", {"n": 1}, idempotency_key="a")
    assert first.body == {"placed": 1, "id": "1"}
    assert node.ask("POST", "/orders/1", {"n": 1}, idempotency_key="a").body == first.body
    assert told(node.ask("POST", "/orders/1", {"n": 2}, idempotency_key="a")) == REFUSED
    assert told(node.ask("POST", "/orders/2", {"n": 1}, idempotency_key="a")) == REFUSED
    assert told(node.ask("POST", "/orders/1?x=1", {"n": 1}, idempotency_key="a")) == REFUSED
    assert node.ask("POST", "/orders/1", {"n": 2}, idempotency_key="b").body["placed"] == 2


def test_a_call_by_name_is_held_to_its_key_too(node: Served) -> None:
    place = "/-/v1/functions/desk.later"
    assert node.ask("POST", place, {"n": 1}, idempotency_key="f").status == 200
    assert node.ask("POST", f"{place}?timeout=5", {"n": 1}, idempotency_key="f").status == 200
    assert told(node.ask("POST", place, {"n": 2}, idempotency_key="f")) == REFUSED


def test_a_repetition_of_a_call_that_still_runs_does_not_run_beside_it(node: Served) -> None:
    def said() -> list[str]:
        lines = node.ask("GET", "/-/v1/logs?function=desk.slow").body["logs"]
        return [line["text"] for line in lines]

    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(node.ask, "POST", "/slow", {}, idempotency_key="s")
        wait_for(lambda: bool(said()))
        late = node.ask("POST", "/slow", {}, idempotency_key="s")
        assert told(node.ask("POST", "/slow", {"n": 2}, idempotency_key="s")) == REFUSED
        assert (*told(late), late.headers["retry-after"]) == (409, "under-way", "1")
        assert (first.result().status, first.result().body) == (200, 1)
    assert node.ask("POST", "/slow", {}, idempotency_key="s").body == 1
    assert said() == ["begun"]


def test_a_kept_request_is_found_again_by_its_key(node: Served) -> None:
    first = node.ask("POST", "/later", {"n": 1}, idempotency_key="k")
    again = node.ask("POST", "/later", {"n": 1}, idempotency_key="k")
    assert (first.body["duplicate"], again.body["duplicate"]) == (False, True)
    assert first.headers["location"] == again.headers["location"] == again.body["status"]
    node.wait_for(again.headers["location"])
    assert told(node.ask("POST", "/later", {"n": 2}, idempotency_key="k")) == REFUSED


def test_keys_outlive_a_node_that_is_killed(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "app.py").write_text(APP)
    process, url = start(tmp_path)
    try:
        kept = ask("POST", f"{url}/later", {"n": 1}, idempotency_key="k")
        called = ask("POST", f"{url}/orders/1", {"n": 1}, idempotency_key="k")
        process.kill()
        process.wait()
        process, url = start(tmp_path)
        again = ask("POST", f"{url}/later", {"n": 1}, idempotency_key="k")
        assert again.body == {**kept.body, "duplicate": True}
        assert told(ask("POST", f"{url}/later", {"n": 2}, idempotency_key="k")) == REFUSED
        assert ask("POST", f"{url}/orders/1", {"n": 1}, idempotency_key="k").body == called.body
        assert told(ask("POST", f"{url}/orders/1", {"n": 2}, idempotency_key="k")) == REFUSED
    finally:
        process.kill()
        process.wait()
