"""Requests as both clients send them, and what they make of answers."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.client import AsyncClient, Client, Message, calls
from headrace.client.responses import NodeResponse
from headrace.client.views import PublishResult, dead_letter_of, received_of
from headrace.model.errors import Misuse


@dataclass
class Order:
    item: str
    count: int


def test_a_value_is_sent_as_json_and_bytes_as_they_are() -> None:
    for value, body, media in (
        ({"item": "tea"}, b'{"item":"tea"}', "application/json"),
        (Order("tea", 2), b'{"item":"tea","count":2}', "application/json"),
        ("tea", b'"tea"', "application/json"),
        (None, b"null", "application/json"),
        (b"\xff", b"\xff", "application/octet-stream"),
    ):
        sent = calls.publish("streams", "orders", value)
        assert (sent.body, sent.media) == (body, media)


def test_what_is_not_json_is_refused_before_it_is_sent() -> None:
    for value in (object(), {1j: 1}, float):
        with pytest.raises(Misuse, match="cannot be written as JSON"):
            calls.publish("streams", "orders", value)


def test_names_are_quoted_and_options_that_are_not_given_are_left_out() -> None:
    assert calls.publish("streams", "a/ü", 1).target == "/-/v1/streams/a%2F%C3%BC"
    sent = calls.publish("queues", "jobs", 1, key="a b", delay="1m", priority=5)
    assert sent.target == "/-/v1/queues/jobs?key=a+b&delay=60&priority=5"
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    sent = calls.publish("queues", "jobs", 1, at=moment)
    assert sent.query["at"] == "2026-01-31T00:00:00+00:00"


def test_times_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(Misuse, match="give one of them"):
        calls.publish("queues", "jobs", 1, delay=5, at="2026-01-31T00:00:00Z")
    with pytest.raises(Misuse, match="`wait=`"):
        calls.receive("jobs", 1, "1m", None)
    with pytest.raises(Misuse, match="`timeout=`"):
        calls.call("shop.price", 1, "soon", None)


def test_only_what_may_be_sent_twice_is_repeatable() -> None:
    assert calls.get(("lag",), {}).is_repeatable
    assert calls.invocations(None, 1).is_repeatable
    assert not calls.publish("streams", "orders", 1).is_repeatable
    keyed = calls.publish("streams", "orders", 1, idempotency_key="k")
    assert keyed.is_repeatable
    assert keyed.headers == {"Idempotency-Key": "k"}
    assert not calls.receive("jobs", 1, 0, None).is_repeatable


def test_several_events_are_lines() -> None:
    body = calls.envelopes(
        [
            Message(value={"item": "tea"}, key="k", headers={"a": "b"}),
            Message(value=b"\xff", delay=timedelta(minutes=1)),
        ]
    )
    assert [json.loads(line) for line in body.split(b"\n")] == [
        {"key": "k", "headers": {"a": "b"}, "value": {"item": "tea"}},
        {"delay": "60", "value_base64": "/w=="},
    ]


def test_dead_letters_are_named_or_all_are_meant() -> None:
    for letters, everything in (((), False), (("orders/0/1",), True)):
        with pytest.raises(Misuse, match="not both"):
            calls.change_dead("shop.sell", "redrive", letters, everything=everything)
    said = calls.change_dead("shop.sell", "redrive", ["orders/0/1"], everything=False)
    assert json.loads(said.body or b"") == {"positions": ["orders/0/1"]}
    assert said.read(NodeResponse(200, {}, b'{"redriven": 1}')) == 1


def test_payloads_come_in_three_forms() -> None:
    row: dict[str, Any] = {
        "receipt": "r",
        "position": "jobs/0/1",
        "attempt": 1,
        "until": "2026-01-31T00:00:00Z",
        "headers": {},
    }
    assert received_of({**row, "value": [1]}).value == [1]
    assert received_of({**row, "value_text": "x"}).value == "x"
    assert received_of({**row, "value_base64": "/w=="}).value == b"\xff"


def test_a_dead_letter_says_what_failed() -> None:
    letter = dead_letter_of(
        {
            "function": "shop.sell",
            "position": "orders/0/1",
            "cause": {"kind": "ValueError", "message": "no", "traceback": ""},
            "attempts": 5,
            "failed": "",
            "event": {"key": "k", "value": 1},
            "hops": 0,
        }
    )
    assert (letter.cause.kind, letter.event.value, letter.failed) == ("ValueError", 1, None)


def test_an_answer_that_lacks_a_field_is_not_a_nodes() -> None:
    with pytest.raises(Exception, match="not a Headrace node"):
        calls.publish("streams", "orders", 1).read(NodeResponse(200, {}, b"{}"))
    assert calls.publish("streams", "orders", 1).read(
        NodeResponse(202, {}, b'{"positions": ["orders/0/1"], "duplicates": 0, "delayed": 0}')
    ) == PublishResult(["orders/0/1"], duplicates=0, delayed=0)


def test_both_clients_offer_the_same(tmp_path: Path) -> None:
    """A request that is added to one of them is added to the other."""
    only_sync = {"request"}
    sync = {name for name in vars(Client) if name[0] != "_"} - only_sync
    assert sync == {name for name in vars(AsyncClient) if name[0] != "_"}
    for name in sync:
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(one) == inspect.signature(other), name
        assert name == "close" or inspect.iscoroutinefunction(other), name
    with pytest.raises(Misuse, match="no node runs on the data folder"):
        Client(data=tmp_path)
