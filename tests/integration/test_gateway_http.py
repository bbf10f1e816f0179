"""The door of a real node, asked over real HTTP."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import operator, page, serving, settle

from headrace.client.calls import ENVELOPES
from headrace.client.http import Client
from headrace.client.views import PublishResult
from headrace.model.errors import (
    HeadraceError,
    Invalid,
    Misuse,
    Refused,
    TooLarge,
    Unavailable,
    Unknown,
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with operator(url) as found:
        yield found


def post(client: Client, stream: str, body: bytes, media: str = "", **headers: str) -> Any:
    return client.request("POST", ("streams", stream), body=body, media=media, headers=headers)


def test_a_published_value_is_answered_with_its_position(client: Client) -> None:
    answer = post(client, "notes", b"hello", "text/plain")
    assert answer.status == 202
    (position,) = answer.json()["positions"]
    _, partition, offset = position.split("/")
    (record,) = client.get("streams", "notes", "records", partition=partition, offset=offset)[
        "records"
    ]
    assert record["position"] == position
    assert record["value_text"] == "hello"


def test_the_key_comes_from_the_query_or_a_header(client: Client) -> None:
    first = client.publish("notes", b"1", key="ä/1").positions
    second = post(client, "notes", b"2", "text/plain", **{"Headrace-Key": "k2"}).json()["positions"]
    keys = [
        client.get(
            "streams", "notes", "records", partition=0, offset=(found[0] or "").split("/")[2]
        )["records"][0]["key"]
        for found in (first, second)
    ]
    assert keys == ["ä/1", "k2"]


def test_a_repeated_publish_with_its_idempotency_key_lands_once(client: Client) -> None:
    first = client.publish("orders", b'{"item":"once","quantity":1}', key="a", idempotency_key="t1")
    again = client.publish("orders", b'{"item":"once","quantity":1}', key="a", idempotency_key="t1")
    assert first.duplicates == 0
    assert again == PublishResult([None], duplicates=1, delayed=0)
    settle(client)
    assert client.get("state", "shop", "shop.count", "once")["value"] == 1


def test_a_batch_lands_whole_or_not_at_all(client: Client) -> None:
    before = client.get("streams", "orders")["records"]
    with pytest.raises(Invalid, match="line 2: "):
        client.publish("orders", b'{"value":1}\n{"value":nope}', media=ENVELOPES)
    assert client.get("streams", "orders")["records"] == before


def test_an_order_goes_the_whole_way_and_a_wrong_one_becomes_a_dead_letter(client: Client) -> None:
    lines = [
        {"value": {"item": "tea", "quantity": 2}, "key": "tea"},
        {"value": {"item": "tea", "quantity": 0}, "key": "tea"},
        {"value": {"item": "tea", "quantity": 3}, "key": "tea"},
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    found = client.publish("orders", body, media=ENVELOPES).positions
    positions = [each for each in found if each is not None]
    settle(client)
    assert client.get("state", "shop", "shop.count", "tea")["value"] == 5
    assert client.get("state", "shop", "shop.count", prefix="te")["state"][0]["key"] == "tea"
    (dead,) = [row for row in client.get("dead")["dead"] if row["event"].get("key") == "tea"]
    assert dead["position"] == positions[1]
    assert dead["event"]["value"] == {"item": "tea", "quantity": 0}
    assert "nothing was ordered" in dead["cause"]["message"]
    assert client.get("dead", "shop.count", *positions[1].split("/"))["attempts"] == 1
    explained = client.get("explain", *positions[0].split("/"))
    assert explained["functions"][0]["status"] == "committed"
    assert client.get("explain", *positions[1].split("/"))["functions"][0]["status"] == "dead"
    assert client.post("dead", "shop.count", "discard", data={"positions": [positions[1]]}) == {
        "discarded": 1
    }
    with pytest.raises(Unknown):
        client.get("dead", "shop.count", *positions[1].split("/"))


def test_a_redriven_dead_letter_comes_back_when_it_fails_again(client: Client) -> None:
    (position,) = client.publish("orders", b'{"item":"x","quantity":0}', key="r").positions
    assert position is not None
    settle(client)
    assert client.post("dead", "shop.count", "redrive", data={"positions": [position]}) == {
        "redriven": 1
    }
    deadline = time.monotonic() + 10
    while position not in [row["position"] for row in client.get("dead")["dead"]]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client.post("dead", "shop.count", "discard", data={"all": True})


def test_a_parked_key_waits_until_it_is_redriven(client: Client) -> None:
    client.publish("parcels", b'"fragile"', key="vase")
    client.publish("parcels", b'"sturdy"', key="vase")
    client.publish("parcels", b'"sturdy"', key="book")
    settle(client)
    (parked,) = client.get("parked", function="shop.ship")["parked"]
    assert (parked["key"], parked["events"]) == ("vase", 2)
    assert client.get("state", "shop", "shop.ship", "shipped/book")["value"] == "sturdy"
    client.request("POST", ("functions", "shop.wear_gloves"), body=b"1")
    assert client.post("parked", "shop.ship", "redrive", data={"key": "vase"}) == {"redriven": 1}
    deadline = time.monotonic() + 10
    while client.get("parked")["parked"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.get("state", "shop", "shop.ship", "shipped/vase")["value"] == "sturdy"


def test_a_function_is_called_and_answers(client: Client) -> None:
    answer = client.request("POST", ("functions", "shop.double"), body=b"21")
    assert (answer.status, answer.json()) == (200, 42)


def test_a_call_that_takes_too_long_is_504(client: Client) -> None:
    with pytest.raises(HeadraceError, match="TimedOut"):
        client.request("POST", ("functions", "shop.sleepy"), body=b"1")


def test_a_call_that_raises_says_what(client: Client) -> None:
    with pytest.raises(HeadraceError, match="TypeError"):
        client.request("POST", ("functions", "shop.double"), body=b"null")


def test_cloudevents_come_in_all_three_ways(client: Client) -> None:
    event = {
        "specversion": "1.0",
        "id": "c1",
        "source": "/t",
        "type": "order",
        "partitionkey": "ce",
        "data": {"item": "ce", "quantity": 1},
    }
    post(
        client, "orders", json.dumps(event).encode(), "application/cloudevents+json; charset=utf-8"
    )
    many = [event | {"id": "c2"}, event | {"id": "c3"}, event]
    found = post(
        client, "orders", json.dumps(many).encode(), "application/cloudevents-batch+json"
    ).json()
    assert found["duplicates"] == 1
    post(
        client,
        "orders",
        b'{"item":"ce","quantity":1}',
        "application/json",
        **{
            "ce-specversion": "1.0",
            "ce-id": "c4",
            "ce-source": "/t",
            "ce-type": "order",
            "ce-partitionkey": "ce",
        },
    )
    settle(client)
    assert client.get("state", "shop", "shop.count", "ce")["value"] == 4


def test_raw_bytes_stay_as_they_are(client: Client) -> None:
    (position,) = post(client, "blobs", b"\x00\xff", "application/octet-stream").json()["positions"]
    _, partition, offset = position.split("/")
    (record,) = client.get("streams", "blobs", "records", partition=partition, offset=offset)[
        "records"
    ]
    assert record["value_base64"] == "AP8="


@pytest.mark.parametrize(
    ("path", "body", "media", "kind", "says"),
    [
        (("streams", "nowhere"), b"1", "", Unknown, "nowhere"),
        (("streams", "orders"), b"{", "", Invalid, "JSON"),
        (("streams", "orders"), b"", "", Invalid, "empty"),
        (("streams", "orders"), b'{"a":1,"a":2}', "", Invalid, "twice"),
        (("streams", "orders"), b"NaN", "", Invalid, "JSON"),
        (("streams", "orders"), b"[" * 300 + b"]" * 300, "", Invalid, "200"),
        (("streams", "orders"), b'"\\ud800"', "", Invalid, ""),
        (("streams", "orders"), b"1" * 400, "", Invalid, ""),
        (("streams", "orders"), b"\n\n", "application/x-ndjson", Invalid, "no event"),
        (("streams", "notes"), b"\xff", "", Invalid, "UTF-8"),
        (("streams", "secret"), b"1", "", Refused, "private"),
        (("streams", "blobs"), b"x" * ((1 << 20) + 1), "", TooLarge, "max_event_bytes"),
        (("streams", "blobs"), b"x" * ((8 << 20) + 1), "", TooLarge, "max_body_bytes"),
        (("functions", "shop.nope"), b"1", "", Unknown, "shop.nope"),
        (("functions", "shop.double"), b"{", "", Invalid, "JSON"),
        (("dead", "shop.count", "redrive"), b"{}", "", Invalid, "say which"),
        (("dead", "shop.count", "redrive"), b'{"positions":["x"]}', "", Invalid, "not a position"),
        (("dead", "shop.count", "redrive"), b"[1]", "", Invalid, "cannot be read"),
        (("parked", "shop.ship", "redrive"), b'{"key":"none"}', "", Unknown, "none"),
        (("functions", "shop.count", "reset"), b'{"start":"noon"}', "", Invalid, "not a place"),
        (("functions", "shop.nope", "reset"), b'{"start":"latest"}', "", Unknown, "shop.nope"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    client: Client, path: tuple[str, ...], body: bytes, media: str, kind: type, says: str
) -> None:
    with pytest.raises(kind) as error:
        client.request("POST", path, body=body, media=media)
    assert says in str(error.value)
    assert client.request("GET", ("healthz",), at_root=True).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "query", "kind"),
    [
        (("streams", "nowhere"), {}, Unknown),
        (("streams", "orders", "records"), {"partition": 9}, Unknown),
        (("streams", "orders", "records"), {"partition": -1}, Invalid),
        (("streams", "orders", "records"), {"limit": 0}, Invalid),
        (("streams", "orders", "records"), {"limit": "many"}, Invalid),
        (("streams", "orders", "records"), {"cursor": "x"}, Invalid),
        (("streams", "orders", "records"), {"cursor": "9:0"}, Invalid),
        (("streams", "orders", "records"), {"wait": 31}, Invalid),
        (("streams", "orders", "records"), {"from": "noon"}, Invalid),
        (("state", "nobody"), {}, Unknown),
        (("state", "shop", "nothing"), {}, Unknown),
        (("state", "shop", "shop.count", "nothing"), {}, Unknown),
        (("explain", "orders", "0", "999999"), {}, Unknown),
        (("explain", "orders", "x", "1"), {}, Invalid),
        (("lag",), {"function": "nope"}, Unknown),
        (("dead",), {"after": "x"}, Invalid),
        (("nowhere",), {}, Unknown),
    ],
)
def test_what_is_not_there_is_said(
    client: Client, path: tuple[str, ...], query: dict[str, Any], kind: type[HeadraceError]
) -> None:
    with pytest.raises(kind):
        client.get(*path, **query)


def test_an_error_is_a_problem_in_json(url: str) -> None:
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("DELETE", "/-/v1/streams/orders")
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem == {
        "type": "urn:headrace:error:method-not-allowed",
        "title": "Method not allowed",
        "status": 405,
        "code": "method-not-allowed",
        "detail": "`DELETE` does nothing at `/-/v1/streams/orders`; use GET, HEAD, POST",
    }
    connection.close()


def test_records_are_paged_by_a_cursor_without_loss_or_repetition(client: Client) -> None:
    body = b"\n".join(b'{"value":%d,"key":"%d"}' % (number, number) for number in range(500))
    client.publish("parcels", body, media=ENVELOPES)
    seen: list[str] = []
    found = client.get("streams", "parcels", "records", limit=37, **{"from": "earliest"})
    while found["records"]:
        seen += [record["position"] for record in found["records"]]
        found = client.get("streams", "parcels", "records", limit=37, cursor=found["cursor"])
    assert len(seen) == len(set(seen)) == client.get("streams", "parcels")["records"]


def test_a_long_poll_wakes_when_a_record_arrives(url: str, client: Client) -> None:
    found = client.get("streams", "notes", "records", **{"from": "latest"})
    assert found["records"] == []

    def publish() -> None:
        with operator(url) as other:
            other.publish("notes", b"news")

    timer = threading.Timer(0.2, publish)
    timer.start()
    began = time.monotonic()
    found = client.get("streams", "notes", "records", cursor=found["cursor"], wait=10)
    timer.join()
    assert [record["value_text"] for record in found["records"]] == ["news"]
    assert 0.1 < time.monotonic() - began < 5


def test_a_paused_function_stands_still_until_it_is_resumed(client: Client) -> None:
    settle(client)
    client.post("functions", "shop.count", "pause")
    client.publish("orders", b'{"item":"late","quantity":1}', key="late")
    time.sleep(0.2)
    assert sum(row["lag"] for row in client.get("lag", function="shop.count")["lag"]) == 1
    client.post("functions", "shop.count", "resume")
    settle(client)
    assert client.get("state", "shop", "shop.count", "late")["value"] == 1


def test_a_group_goes_back_and_runs_again(client: Client) -> None:
    client.publish("orders", b'{"item":"again","quantity":1}', key="again")
    settle(client)
    first = client.get("state", "shop", "shop.count", "again")["value"]
    client.post("functions", "shop.count", "reset", data={"start": "earliest"})
    settle(client)
    assert client.get("state", "shop", "shop.count", "again")["value"] == first + 1


def test_what_is_deployed_can_be_seen(client: Client) -> None:
    assert client.get()["apps"] == ["shop"]
    rows = client.get("map")["map"]
    assert {"shop.count", "shop.double"} <= {row["function"] for row in rows}
    functions = client.get("functions")["functions"]
    assert {row["name"] for row in functions} >= {"shop.count", "shop.ship", "shop.double"}
    assert client.get("functions", "shop.count")["retry"]["attempts"] == 1
    streams = {row["name"]: row for row in client.get("streams")["streams"]}
    assert streams["orders"]["readers"] == ["shop.count"]
    assert streams["notes"]["codec"] == "text"


def test_what_happened_can_be_seen(client: Client) -> None:
    client.publish("orders", b'{"item":"seen","quantity":1}', key="seen")
    settle(client)
    runs = client.get("invocations", function="shop.count", limit=5)["invocations"]
    assert 1 <= len(runs) <= 5
    assert {"function", "outcome", "wall"} <= set(runs[0])
    deadline = time.monotonic() + 5
    while "counting seen" not in [line["text"] for line in client.get("logs", limit=1000)["logs"]]:
        assert time.monotonic() < deadline, client.get("logs")
        time.sleep(0.05)
    assert client.get("instances")["instances"]
    assert client.request("GET", ("readyz",), at_root=True).json()["ready"] is True


def test_the_console_shows_streams_events_functions_and_failures(client: Client) -> None:
    shown = client.publish("orders", b'{"item":"shown","quantity":0}', key="shown")
    position = shown.positions[0]
    settle(client)
    for path, says in {
        "/console": 'href="/console/functions/shop.count"',
        "/console/streams": 'href="/console/streams/parcels"',
        "/console/streams/orders": f">{position}</a>",
        "/console/streams/orders?from=earliest": 'href="/console/events/orders/',
        "/console/streams/orders?partition=1": "partition 1",
        f"/console/events/{position}": ">dead<",
        "/console/functions/shop.count": "nothing was ordered",
        "/console/functions/shop.double": "Twice what it is given.",
        "/console/triggers": "No function has a schedule.",
        "/console/queues": "No queue is declared",
        "/console/failures": f"headrace dead redrive shop.count {position}",
        f"/console/dead/shop.count/{position}": "&#34;item&#34;: &#34;shown&#34;",
        "/console/runs": 'href="/console/functions/shop.count"',
    }.items():
        html = page(client.url, path)
        assert html.startswith("<!doctype html>"), path
        assert says in html, (path, html)


def test_a_page_of_the_console_that_is_not_there_is_said_on_a_page(url: str) -> None:
    for path, says in (
        ("functions/shop.cuont", "did you mean `shop.count`?"),
        ("streams/orders?cursor=x", "pass on the one the last answer gave"),
        ("events/orders/0/999999", "holds no offset 999999"),
        ("dead/shop.count/orders/0/x", "is not a position"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/console/{path}")
        with caught.value as answer:
            assert answer.code in {400, 404}
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert says in answer.read().decode()


def test_metrics_speak_of_streams_functions_and_routes(client: Client) -> None:
    client.publish("notes", b"counted")
    text = page(client.url, "/metrics")
    for name in (
        'headrace_published_events_total{stream="notes"}',
        'headrace_invocations_total{function="shop.count",outcome="succeeded"}',
        'headrace_invocation_seconds_bucket{function="shop.count",le="+Inf"}',
        'headrace_lag_events{function="shop.count",partition="0",stream="orders"}',
        'headrace_instances{function="shop.count",state=',
        'headrace_cold_start_seconds{quantile="0.5"}',
        'headrace_http_requests_total{method="POST",route="/-/v1/streams/{stream}",status="202"}',
    ):
        assert name in text, text


def test_where_nothing_answers_the_client_says_what_to_do() -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(
            Unavailable, match=r"no node answers at `http://127\.0\.0\.1:9`.*headrace dev"
        ),
    ):
        client.request("GET", ("healthz",), at_root=True).json()


@pytest.mark.parametrize("url", ["", "ftp://x.test", "http://", "http://x.test:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Misuse, match="is not an address"):
        Client(url)


def test_the_node_writes_its_address_down_and_takes_it_away(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        note = json.loads((tmp_path / "data" / "node.json").read_text())
        assert note["url"] == url
    assert not (tmp_path / "data" / "node.json").exists()
