"""Paths of routes: what may be written, what fits, and what stands in the braces."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace import App, Event, Http, PerClient, Request, Webhook
from headrace.errors import Misuse
from headrace.http.server.route_resolver import route_table
from headrace.model.errors import Invalid
from headrace.model.route import RESERVED, fits, rank, segments_of, value_of
from headrace.model.triggers.base import Trigger
from headrace.model.triggers.http import Bearer, Cors, Legacy
from headrace.model.webhook_signature import GitHub


@pytest.mark.parametrize(
    "path",
    [
        "",
        "orders",
        "/-/v1/streams/x",
        "/-",
        "/%2D/x",
        "/healthz/x",
        "/console",
        "/a//b",
        "/a/{b",
        "/a/{b:thing}",
        "/a/{b}/{b}",
        "/a/{rest:path}/b",
        "/a/..",
        "/a b",
        "/a?b",
        "/" + "x" * 600,
        7,
    ],
)
def test_what_is_no_path_of_an_authors_is_refused(path: Any) -> None:
    with pytest.raises(Misuse):
        Http("POST", path)


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("/a/b", "/a/b", {}),
        ("/a/b", "/a/b/", None),
        ("/a/{x}", "/a/1", {"x": "1"}),
        ("/a/{x}", "/a/", None),
        ("/a/{x}", "/a", None),
        ("/a/{x:int}", "/a/-7", {"x": -7}),
        ("/a/{x:float}/c", "/a/1.5/c", {"x": 1.5}),
        ("/a/{x:path}", "/a/b/c/d", {"x": "b/c/d"}),
        (
            "/a/{x:uuid}",
            "/a/00000000-0000-0000-0000-00000000000A",
            {"x": "00000000-0000-0000-0000-00000000000a"},
        ),
    ],
)
def test_a_path_fits_its_pattern(pattern: str, path: str, found: dict[str, Any] | None) -> None:
    quoted = fits(segments_of(pattern, pattern), path.split("/")[1:])
    if found is None:
        assert quoted is None
    else:
        assert quoted is not None
        assert {segment.name: value_of(segment, text) for segment, text in quoted} == found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "1.0"),
        ("int", "9" * 20),
        ("float", "1e999"),
        ("float", "nan"),
        ("uuid", "1"),
        ("int", ""),
    ],
)
def test_what_is_not_of_the_kind_is_refused(kind: str, text: str) -> None:
    (_, segment) = segments_of(f"/a/{{x:{kind}}}", "here")
    with pytest.raises(Invalid, match="`x`"):
        value_of(segment, text)


def test_what_is_written_out_goes_before_braces() -> None:
    paths = ["/a/{rest:path}", "/a/{x}", "/a/b"]
    ranked = sorted(paths, key=lambda path: rank(segments_of(path, path)))
    assert ranked == ["/a/b", "/a/{x}", "/a/{rest:path}"]


def test_every_path_of_the_platform_is_reserved() -> None:
    firsts = {pattern.split("/")[1] for _, pattern in route_table().patterns()}
    # `GET /` answers where no app has a route there.
    assert firsts == {*RESERVED, ""}


def test_two_routes_for_the_same_requests_are_refused() -> None:
    app = App("shop")

    @app.function(Http("POST", "/orders/{id}"))
    def one(event: Event[Any]) -> None: ...

    with pytest.raises(Misuse, match="both answer"):

        @app.function(Http(("GET", "POST"), "/orders/{number:int}"))
        def two(event: Event[Any]) -> None: ...

    @app.function(Http("GET", "/orders/{id}"))
    def three(event: Event[Any]) -> None: ...

    assert set(app.functions) == {"shop.one", "shop.three"}


class Order(msgspec.Struct):
    """An order."""

    item: str


def test_the_type_of_the_body_is_the_handlers_and_leaves_as_a_schema() -> None:
    app = App("shop")

    @app.function(Http("POST", "/a", mode="async"), Webhook("/b", GitHub("NAME")))
    def take(event: Event[Order]) -> None: ...

    for trigger in app.functions["shop.take"].spec.triggers:
        assert isinstance(trigger, (Http, Webhook))
        assert trigger.schema is not None
        assert trigger.schema["$defs"]["Order"]["required"] == ["item"]
        raw = msgspec.msgpack.encode(trigger)
        assert msgspec.msgpack.decode(raw, type=Trigger) == trigger
    assert set(app.functions["shop.take"].decoders) == {"_shop.take.http.0", "_shop.take.webhook.1"}


def test_a_body_of_another_type_than_the_handlers_is_refused() -> None:
    app = App("shop")
    with pytest.raises(Misuse, match="make them the same"):

        @app.function(Http("POST", "/a", body=int))
        def take(event: Event[Order]) -> None: ...


@pytest.mark.parametrize("route", [Http("POST", "/a"), Webhook("/a", GitHub("NAME"))])
def test_a_request_is_no_body(route: Http | Webhook) -> None:
    app = App("shop")
    with pytest.raises(Misuse, match=r"value is its body.*write `event: Event\[Body\]`"):

        @app.function(route)
        def take(event: Event[Request]) -> None: ...


@pytest.mark.parametrize(
    "make",
    [
        lambda: Http("FETCH", "/a"),
        lambda: Http((), "/a"),
        lambda: Http("POST", "/a", mode="later"),  # type: ignore[arg-type]
        lambda: Http("POST", "/a", max_bytes=0),
        lambda: Http("POST", "/a", key="path.id"),
        lambda: Http("POST", "/a", mode="async", key="id"),
        lambda: Http("POST", "/a", headers=("x y",)),
        lambda: Http("POST", "/a", timeout=0),
        lambda: Webhook("/a", "secret"),  # type: ignore[arg-type]
        lambda: Webhook("/a", GitHub("NAME"), dedupe=0),
        lambda: Webhook("/a", GitHub(())),
        lambda: Cors("*", credentials=True),
        lambda: Cors("shop.example"),
        lambda: PerClient(0),
        lambda: PerClient(1, per="soon"),
        lambda: Bearer("a b"),
        lambda: Legacy("ftp://old"),
        lambda: Legacy("http://old", share=1.5),
        lambda: Legacy("http://old/?x", share=0.5),
        lambda: Legacy("http://old", sticky="body.x"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_when_it_is_written(make: Any) -> None:
    with pytest.raises(Misuse):
        make()


@pytest.mark.parametrize(
    "write",
    [
        lambda: Http("POST", "/orders/{id}", mode="async", key="path.number"),
        lambda: Http("POST", "/orders", mode="async", key="path.id"),
        lambda: Webhook("/hooks/{tenant}", GitHub("HOOK"), key="path.customer"),
        lambda: Http("GET", "/orders/{id}", legacy=Legacy("http://old", sticky="path.customer")),
    ],
)
def test_a_part_of_the_path_that_is_not_there_orders_nothing(write: Any) -> None:
    with pytest.raises(Misuse, match="but the path has"):
        write()
    Webhook("/hooks/{tenant}", GitHub("HOOK"), key="path.tenant")
