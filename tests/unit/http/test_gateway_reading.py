"""What a request becomes: a payload of the route's type, headers that carry the rest, and a key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace import App, Event, Http, Webhook
from headrace.http.admission import Admission
from headrace.http.api.streams import place
from headrace.http.pipeline.payload_binding import (
    carried,
    payload_of,
    picked,
    query_texts,
    typed_query,
)
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.request import IncomingRequest
from headrace.model.errors import Invalid, TooLarge
from headrace.model.jsonschema import Mismatch
from headrace.patterns.schema_validation import Checker
from headrace.security.access import Peer
from headrace.webhooks import GitHub


class Order(msgspec.Struct):
    """An order."""

    item: str
    count: int = 1


def _nothing() -> None: ...


def request(query: bytes = b"", method: str = "POST", **headers: str) -> IncomingRequest:
    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    request_body = RequestBody(resume=_nothing, invite=None)
    return IncomingRequest(
        method, "/x", query, named, dict(named), Peer("10.0.0.9"), request_body, Admission()
    )


def resolved(route: Http | Webhook, of: Any) -> Http | Webhook:
    """The route as the app's spec has it."""
    app = App("shop")

    def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = Event[of]
    app.function(route)(handler)
    (trigger,) = app.functions["shop.handler"].spec.triggers
    assert isinstance(trigger, (Http, Webhook))
    return trigger


def bodies(route: Http | Webhook) -> Checker | None:
    return None if route.schema is None else Checker(route.schema)


def queries(route: Http | Webhook) -> Checker | None:
    return None if route.query_schema is None else Checker(route.query_schema)


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "5+minutes", "9" * 400])
def test_a_wrong_duration_or_size_in_a_query_is_refused_with_name_and_fix(text: str) -> None:
    given = request(f"wait={text}&size={text}".encode())
    with pytest.raises(Invalid, match=r"`wait` is .*(write|use) "):
        given.seconds("wait", 0.0, high=30)
    with pytest.raises(Invalid, match=r"`size` is .*(write|use) "):
        given.size("size", 0)


def test_durations_and_sizes_in_a_query_are_read_as_everywhere() -> None:
    given = request(b"wait=1m30s&size=64MiB")
    assert given.seconds("wait", None, high=3_600) == 90
    assert given.size("size", 0) == 64 << 20
    assert (given.seconds("other", None, high=1), given.size("other", 5)) == (None, 5)


def test_a_body_is_taken_byte_for_byte_where_it_is_of_the_type() -> None:
    route = resolved(Http("POST", "/x"), Order)
    raw = b'{ "item":"tea" , "count": 2, "more": 1 }'
    assert payload_of(route, bodies(route), "POST", raw, {}, {}) == raw
    for wrong in (b'{"count": 1}', b'{"item": 7}', b"[]", b"null"):
        with pytest.raises(Mismatch):
            payload_of(route, bodies(route), "POST", wrong, {}, {})
    for bad in (b"", b"{", b'{"item": "a", "item": "b"}', b'{"item": NaN}', b"\xff"):
        with pytest.raises(Invalid):
            payload_of(route, bodies(route), "POST", bad, {}, {})


def test_a_signed_message_of_another_type_is_kept() -> None:
    route = resolved(Webhook("/x", GitHub("NAME")), Order)
    assert payload_of(route, bodies(route), "POST", b'{"count": 1}', {}, {}) == b'{"count": 1}'
    with pytest.raises(Invalid):
        payload_of(route, bodies(route), "POST", b"no JSON", {}, {})


def test_bytes_and_text_are_left_alone() -> None:
    raw = resolved(Http("POST", "/x"), bytes)
    assert payload_of(raw, bodies(raw), "POST", b"\xff", {}, {}) == b"\xff"
    text = resolved(Http("POST", "/x"), str)
    assert payload_of(text, bodies(text), "POST", b"no JSON", {}, {}) == b"no JSON"
    with pytest.raises(Invalid):
        payload_of(text, bodies(text), "POST", b"\xff", {}, {})


def test_a_route_without_a_body_makes_one_of_query_and_path() -> None:
    route = resolved(Http("GET", "/x/{item}"), Order)
    texts = query_texts(request(b"count=3&item=other"))
    query = typed_query(route, queries(route), texts, {"item": "tea"})
    assert msgspec.json.decode(
        payload_of(route, bodies(route), "GET", b"", query, {"item": "tea"})
    ) == {
        "item": "tea",
        "count": 3,
    }
    with pytest.raises(Mismatch):
        typed_query(route, queries(route), {"count": ["3x"]}, {"item": "tea"})


@pytest.mark.parametrize("text", ["1" + "0" * 30, "0" * 18 + "1" + "0" * 9, "1" * 5_000, "11", "x"])
def test_a_number_of_the_query_is_compared_whole(text: str) -> None:
    with pytest.raises(Invalid):
        request(f"limit={text}".encode()).number("limit", 1, low=1, high=10)


def test_zeros_in_front_of_a_number_do_not_matter() -> None:
    assert request(b"limit=0000000000000000000000007").number("limit", 1, low=1, high=10) == 7


@pytest.mark.parametrize(
    "text", ["²", "@²", "1" * 5_000, "9223372036854775808", "@" + "9" * 30, "-1", "", "@"]
)
def test_a_place_in_a_stream_is_a_number_of_64_bits(text: str) -> None:
    with pytest.raises(Invalid):
        place(text)


def test_a_header_that_came_several_times_is_one_text() -> None:
    route = resolved(Http("POST", "/x", headers=("X-Many", "Cookie")), Any)
    fields = [(b"x-many", b"1"), (b"cookie", b"a=1"), (b"x-many", b"2"), (b"cookie", b"b=2")]
    request_body = RequestBody(resume=_nothing, invite=None)
    given = IncomingRequest(
        "POST", "/x", b"", fields, dict(fields), Peer(""), request_body, Admission()
    )
    found = carried(route, given, {}, {})
    assert (found["headrace-http-header-x-many"], found["headrace-http-header-cookie"]) == (
        "1, 2",
        "a=1; b=2",
    )


def test_only_headers_the_route_names_are_handed_on() -> None:
    route = resolved(Http("POST", "/x", headers=("X-Tenant",)), Any)
    given = request(x_tenant="acme", cookie="secret", authorization="Bearer x")
    assert carried(route, given, {"id": 7}, {}) == {
        "headrace-http-method": "POST",
        "headrace-http-path": "/x",
        "headrace-http-client": "10.0.0.9",
        "headrace-http-params": '{"id":7}',
        "headrace-http-header-x-tenant": "acme",
    }
    with pytest.raises(TooLarge):
        carried(route, request(x_tenant="a" * 20_000), {}, {})


@pytest.mark.parametrize(
    ("pick", "found"),
    [
        ("path.id", "7"),
        ("query.q", "tea"),
        ("header.X-Tenant", "acme"),
        ("client", "10.0.0.9"),
        ("body.customer.id", "42"),
        ("body.customer", None),
        ("body.nothing.at.all", None),
        ("query.nothing", None),
    ],
)
def test_a_part_of_a_request_is_picked_as_text(pick: str, found: str | None) -> None:
    body = b'{"customer": {"id": 42}}'
    assert picked(pick, request(x_tenant="acme"), {"id": 7}, {"q": "tea"}, body) == found


def test_what_is_no_key_is_refused() -> None:
    assert picked("body.a", request(), {}, {}, b"\xff") is None
    with pytest.raises(Invalid):
        picked("body.a", request(), {}, {}, msgspec.json.encode({"a": "x" * 2_000}))


@pytest.mark.parametrize("query", [b"a=%ff", b"&".join([b"a=1"] * 200), b"a=\xff"])
def test_a_query_that_cannot_be_read_is_refused(query: bytes) -> None:
    with pytest.raises(Invalid):
        query_texts(request(query))
