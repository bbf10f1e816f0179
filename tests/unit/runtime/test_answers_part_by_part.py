"""A handler that yields: each part is handed on before the next is made, or all make one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.unit.runtime.hosting import Host
from tests.unit.runtime.test_executor import drive

from headrace import App, Context, Event, Failures, Http, Output, Reply
from headrace.errors import Misuse
from headrace.model.event import Event as Fact
from headrace.model.invocation import CallInvocation, Invocation
from headrace.model.outcome import Returned
from headrace.model.record import decode_events, encode_events
from headrace.model.reply import WireReply, open_reply
from headrace.runtime.child.executor import Executor


class Listening(Host):
    """A host that notes the parts it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.heads: list[WireReply | None] = []

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        self.parts.append(body)
        self.heads.append(head)


def called(
    handler: Callable[..., Any], host: Host, *, live: bool = True, **options: Any
) -> Returned:
    """What comes of a call of `handler` with 3."""
    app = App("shop")
    out = app.stream("out")
    if options.pop("output", False):
        options["output"] = out
    app.function(Http("POST", "/f", mode="live"), name="f", **options)(handler)
    fact = encode_events([Fact(b"3")])
    invocation = CallInvocation("shop.f", token=7, event=fact, live=live)
    return drive(Executor(app, host), invocation)


def counting(event: Event[int]) -> Iterator[int]:
    yield from range(event.value)


def test_parts_are_handed_on_one_by_one_before_the_next_is_made() -> None:
    host = Listening()
    seen: list[int] = []

    def watching(event: Event[int]) -> Iterator[int]:
        for number in range(event.value):
            seen.append(len(host.parts))
            yield number

    returned = called(watching, host)
    assert (host.parts, seen) == ([b"0", b"1", b"2"], [0, 1, 2])
    assert returned.error is None


def test_without_a_listener_the_parts_make_one_answer() -> None:
    host = Listening()
    assert called(counting, host, live=False).result == b"[0,1,2]"
    assert host.parts == []


def test_an_asynchronous_generator_is_heard_as_well() -> None:
    async def counting_slowly(event: Event[int]) -> AsyncIterator[int]:
        for number in range(event.value):
            yield number

    host = Listening()
    called(counting_slowly, host)
    assert host.parts == [b"0", b"1", b"2"]


def test_a_reply_that_comes_first_is_the_head_of_raw_parts() -> None:
    def page(event: Event[int]) -> Iterator[Any]:
        yield Reply(media="text/html", status=203, headers={"x-page": "1"})
        yield "<p>"
        yield b"</p>"

    host = Listening()
    assert called(page, host).error is None
    assert host.parts == [b"", b"<p>", b"</p>"]
    assert host.heads == [WireReply(203, {"x-page": "1"}, "text/html", b""), None, None]
    answer = called(page, host, live=False).result
    assert open_reply(answer or b"") == WireReply(203, {"x-page": "1"}, "text/html", b"<p></p>")


def test_a_reply_of_json_keeps_the_parts_values() -> None:
    def made(event: Event[int]) -> Iterator[Any]:
        yield Reply({"first": True}, status=201)
        yield {"second": True}

    answer = called(made, Listening(), live=False).result
    reply = open_reply(answer or b"")
    assert reply is not None
    assert (reply.status, reply.body) == (201, b'[{"first":true},{"second":true}]')


def late(event: Event[int]) -> Iterator[Any]:
    yield 1
    yield Reply(status=404)


def bodyless(event: Event[int]) -> Iterator[Any]:
    yield Reply(status=204)


def mixed(event: Event[int]) -> Iterator[Any]:
    yield Reply(media="text/plain")
    yield {"no": "text"}


@pytest.mark.parametrize(
    ("handler", "says"),
    [(late, "yield it first"), (bodyless, "has no body"), (mixed, "yield `bytes` or `str`")],
)
@pytest.mark.parametrize("live", [True, False])
def test_what_cannot_be_a_part_fails_the_call(
    handler: Callable[..., Any], says: str, live: bool
) -> None:
    error = called(handler, Listening(), live=live).error
    assert error is not None
    assert says in error.message


def test_what_is_yielded_is_published_too_and_state_is_kept() -> None:
    def noting(event: Event[int], context: Context) -> Iterator[Any]:
        yield Output({"n": 1}, key="a")
        context.state.put("n", event.value)

    host = Listening()
    returned = called(noting, host, output=True)
    assert host.parts == [b'{"n":1}']
    [append] = returned.appends
    assert [each.value for each in decode_events(append.body)] == [b'{"n":1}']
    assert [write.key for write in returned.writes] == ["n"]


def test_a_failure_in_the_middle_keeps_nothing() -> None:
    def breaking(event: Event[int], context: Context) -> Iterator[int]:
        context.state.put("n", 1)
        yield 1
        raise ValueError("poison")

    host = Listening()
    returned = called(breaking, host)
    assert host.parts == [b"1"]
    assert returned.error is not None
    assert not returned.writes


def test_a_yielded_failure_fails_the_call() -> None:
    def failing(event: Event[int]) -> Iterator[Any]:
        yield 1
        yield Failures([event], "sold out")

    error = called(failing, Listening()).error
    assert error is not None
    assert "sold out" in error.message


def test_a_host_that_sends_no_parts_says_so() -> None:
    error = called(counting, Host()).error
    assert error is not None
    assert "no answers in parts" in error.message


def test_a_live_route_needs_a_handler_that_yields() -> None:
    app = App("shop")

    def plain(event: Event[int]) -> int:
        return 1

    with pytest.raises(Misuse, match="does not yield"):
        app.function(Http("POST", "/a", mode="live"))(plain)
    with pytest.raises(Misuse, match='needs `mode="async"`'):
        Http("POST", "/a", mode="live", key="body.x")
