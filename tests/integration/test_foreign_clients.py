"""Clients that others wrote, against a real node: what they send is what the stream holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.foreign_clients import CLIENTS, needed, run
from tests.integration.gateway_nodes import page, serving

from headrace.client.http import Client

TEXTS = [
    "plain",
    'a "quoted" word',
    "back\\slash",
    "100%",
    "déjà",
    "Euro € 😀",
    "a#b/c?d&e=f",
    "<b>'",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.mark.slow
def test_a_jdk_client_that_offers_http_2_keeps_its_bodies(url: str) -> None:
    said = run(needed("java"), str(CLIENTS / "JdkClient.java"), url)
    assert said.split() == ["202", "202", "200", *["202"] * 20]
    with Client(url) as client:
        page = client.get("streams", "notes", "records", limit=100)
    texts = [record["value_text"] for record in page["records"]]
    assert texts[:2] == ["fixed", "chunked" * 10_000]
    assert sorted(texts[2:]) == sorted(f"n{number}" for number in range(20))


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript clients and their libraries."""
    npm, folder = needed("npm"), tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "cloudevents.mjs"):
        shutil.copy(CLIENTS / name, folder / name)
    quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    run(npm, "install", *quiet, cwd=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_what_the_javascript_sdk_writes_is_read_as_it_was_meant(
    url: str, javascript: Path, mode: str
) -> None:
    stream = {"binary": "orders", "structured": "parcels"}[mode]
    data = [{"item": "tea", "quantity": 1}, None, [1, "é"]]
    told = [
        (
            mode,
            {
                "id": f"{mode}-{number}",
                "source": "/shop",
                "type": "t",
                "subject": text,
                "note": text,
                "partitionkey": "one",
                "data": data[number % len(data)],
            },
        )
        for number, text in enumerate(TEXTS)
    ]
    told.append(
        (mode, {"id": f"{mode}-none", "source": "/shop", "type": "t", "partitionkey": "one"})
    )
    written = json.dumps(told).encode()
    said = run(
        needed("node"),
        "cloudevents.mjs",
        f"{url}/-/v1/streams/{stream}",
        cwd=javascript,
        data=written,
    )
    assert said.split() == ["202"] * len(told)
    with Client(url) as client:
        found = client.get("streams", stream, "records", limit=100)["records"]
    events = {record["headers"]["ce-id"]: record for record in found if record.get("headers")}
    for _, event in told:
        record = events[event["id"]]
        assert record["value"] == event.get("data")
        assert record["headers"].get("ce-subject") == event.get("subject")
        assert record["headers"].get("ce-note") == event.get("note")


def test_promtool_has_nothing_to_say(url: str) -> None:
    with Client(url) as client:
        client.publish("orders", b'{"item": "tea", "quantity": 1}')
        client.request("POST", ("functions", "shop.double"), body=b"2")
        text = page(url, "/metrics").encode()
    assert b"headrace_cold_start_seconds_count" in text
    assert run(needed("promtool"), "check", "metrics", data=text) == ""
