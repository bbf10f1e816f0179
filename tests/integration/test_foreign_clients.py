"""Clients that others wrote, against a real node: what they send is what the stream holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.foreign_clients import CLIENTS, needed, run
from tests.integration.gateway_nodes import serving

from headrace.client.http import Client


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
