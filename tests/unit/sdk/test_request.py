"""Requests and replies from the handler's side, and what may not be slipped into an answer."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import App, Http, Reply, Request
from headrace.errors import Misuse
from headrace.model.errors import Corrupt, Invalid
from headrace.model.reply import WireReply, open_reply
from headrace.testing import event


def test_a_request_is_read_from_the_event_that_it_brought() -> None:
    headers = {
        "headrace-http-method": "POST",
        "headrace-http-path": "/orders/7",
        "headrace-http-client": "10.0.0.1",
        "headrace-http-params": '{"id":7}',
        "headrace-http-query": '{"a":["1","2"]}',
        "headrace-http-header-x-tenant": "acme",
    }
    found = Request.of(event({}, headers=headers))
    assert (found.method, found.path, found.client) == ("POST", "/orders/7", "10.0.0.1")
    assert found.params == {"id": 7}
    assert found.query == {"a": ["1", "2"]}
    assert found.headers == {"x-tenant": "acme"}


def test_an_event_that_did_not_come_by_http_has_no_request() -> None:
    with pytest.raises(Misuse, match="did not come by a route"):
        Request.of(event({}))


@pytest.mark.parametrize(
    ("reply", "media", "body"),
    [
        (Reply({"a": 1}), "application/json", b'{"a":1}'),
        (Reply("text"), "application/json", b'"text"'),
        (Reply("<p>", media="text/html"), "text/html", b"<p>"),
        (Reply(b"\x00\xff"), "application/octet-stream", b"\x00\xff"),
        (Reply(status=204), "application/json", b""),
        (Reply(), "application/json", b"null"),
    ],
)
def test_a_reply_is_packed_so_that_the_host_opens_the_same(
    reply: Reply, media: str, body: bytes
) -> None:
    assert open_reply(reply.pack()) == WireReply(reply.status, {}, media, body)


@pytest.mark.parametrize(
    "settings",
    [
        {"status": 199},
        {"status": 600},
        {"headers": {"x-a": "b\r\nset-cookie: c"}},
        {"headers": {"x a": "b"}},
        {"headers": {"x-a": "\u20ac"}},
        {"headers": {"content-length": "1"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"media": "text/html\r\nx: y"},
    ],
)
def test_a_reply_cannot_break_out_of_its_headers(settings: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Reply(1, **settings)


def test_json_never_poses_as_a_reply_and_what_poses_must_be_one() -> None:
    for answer in (b"null", b'{"status":200}', b"[0]", b'"\\u0000"'):
        assert open_reply(answer) is None
    with pytest.raises(Corrupt):
        open_reply(b"\x00nonsense")


def test_a_proxys_functions_are_functions_of_the_app() -> None:
    app = App("shop")

    def before(request: Request) -> Request:
        return request

    def after(reply: Reply) -> Reply:
        return reply

    app.proxy("/old", upstream="http://old.example", before=before, after=after)
    app.proxy("/older", upstream="http://older.example", before=before)
    assert set(app.functions) == {"shop.before", "shop.after"}
    assert [proxy.before for proxy in app.spec().proxies] == ["shop.before", "shop.before"]


def test_a_proxy_that_cannot_work_is_refused_when_it_is_written() -> None:
    app = App("shop")

    @app.function(Http("GET", "/a"))
    def show(event: Any) -> None: ...

    async def waits(request: Request) -> Request:
        return request

    makers: list[dict[str, Any]] = [
        {"path": "/a", "upstream": "http://old.example"},
        {"path": "/b/", "upstream": "http://old.example"},
        {"path": "/b/{x:path}", "upstream": "http://old.example"},
        {"path": "/-/v1/streams", "upstream": "http://old.example"},
        {"path": "/b", "upstream": "old.example"},
        {"path": "/b", "upstream": "http://old.example", "before": waits},
        {"path": "/b", "upstream": "http://old.example", "after": lambda: None},
        {"path": "/b", "upstream": "http://old.example", "timeout": 0},
        {"path": "/b", "upstream": "http://old.example", "max_bytes": -1},
    ]
    for settings in makers:
        with pytest.raises(Misuse):
            app.proxy(**settings)
    assert app.proxies == []
