"""An answer in parts: what goes over the wire as it begins, goes on, ends, and breaks."""

from __future__ import annotations

import asyncio

import pytest

from headrace.http.cors import Headers
from headrace.http.pipeline.respond import in_parts
from headrace.http.response import Response
from headrace.http.response_writer import LAST_CHUNK, chunk, written
from headrace.http.streaming_response import COMMITTED, AnswerState, StreamedAnswer, framed
from headrace.model.errors import Corrupt
from headrace.model.reply import WireReply, open_reply, pack_reply


class Client:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.heads: list[tuple[Response, Headers]] = []
        self.sent = b""

    def begin(self, response: Response, extra: Headers) -> None:
        self.heads.append((response, extra))

    def send(self, data: bytes) -> None:
        self.sent += data

    async def wait_writable(self) -> None:
        return


def reported(streamed: StreamedAnswer, *parts: bytes, head: WireReply | None = None) -> None:
    """Hand the parts over."""

    async def emit() -> None:
        first = head
        for part in parts:
            await streamed.take(part, first)
            first = None

    asyncio.run(emit())


def test_lines_end_with_the_last_chunk_and_nothing_else() -> None:
    client = Client()
    streamed = StreamedAnswer(client, "*/*", ((b"vary", b"origin"),))
    reported(streamed, b"1", b'{"a":2}')
    assert client.sent == b'2\r\n1\n\r\n8\r\n{"a":2}\n\r\n'
    streamed.end()
    assert client.sent.endswith(LAST_CHUNK)
    [(response, extra)] = client.heads
    assert (response.status, response.media) == (200, b"application/x-ndjson")
    assert extra == ((b"vary", b"origin"),)
    assert streamed.state is AnswerState.ENDED


def test_events_say_how_it_ended_since_a_browser_does_not_see_it() -> None:
    client = Client()
    streamed = StreamedAnswer(client, "text/event-stream", ())
    reported(streamed, b"1")
    streamed.end()
    assert client.sent == chunk(b"data: 1\n\n") + chunk(COMMITTED) + LAST_CHUNK


def test_a_broken_answer_has_no_end() -> None:
    lines, events = Client(), Client()
    for client, accept in ((lines, ""), (events, "text/event-stream")):
        streamed = StreamedAnswer(client, accept, ())
        reported(streamed, b"1")
        streamed.break_off(Response(500, b'{"status":500}'))
        assert streamed.state is AnswerState.BROKEN
    assert lines.sent == chunk(b"1\n")
    assert events.sent == chunk(b"data: 1\n\n") + chunk(b'event: failed\ndata: {"status":500}\n\n')


def test_raw_parts_go_as_they_are() -> None:
    client = Client()
    streamed = StreamedAnswer(client, "text/event-stream", ())
    reported(streamed, b"", b"ab", b"\n", head=WireReply(201, {"x-a": "b"}, "text/plain", b""))
    streamed.end()
    assert client.sent == chunk(b"ab") + chunk(b"\n") + LAST_CHUNK
    [(response, _)] = client.heads
    assert (response.status, response.media) == (201, b"text/plain")
    assert (b"x-a", b"b") in response.headers


def test_the_head_of_chunks_has_no_length() -> None:
    head = written(
        Response(200, b"", b"text/plain"), (), date=b"", method="", last=False, chunked=True
    )
    assert b"transfer-encoding: chunked\r\n" in head
    assert b"content-length" not in head
    assert head.endswith(b"\r\n\r\n")


def test_a_whole_answer_at_a_live_route_looks_as_if_sent_in_parts() -> None:
    whole = Response(201, b"[1,2]")
    assert in_parts(whole, "", live=True) == Response(201, b"1\n2\n", b"application/x-ndjson")
    events = in_parts(whole, "text/event-stream", live=True)
    assert events.body == b"data: 1\n\ndata: 2\n\n" + COMMITTED
    assert in_parts(whole, "text/event-stream") is whole


@pytest.mark.parametrize("status", [0, 99, 199, 600, 9_999])
def test_a_status_that_is_none_is_no_reply(status: int) -> None:
    forged = pack_reply(WireReply(status, {}, "text/plain", b""))
    with pytest.raises(Corrupt):
        open_reply(forged)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_a_value_that_was_given_as_lines_of_json_stays_one_value(accept: str) -> None:
    client = Client()
    streamed = StreamedAnswer(client, accept, ())
    reported(streamed, b'{\r\n "a":\r1}\n', head=WireReply(200, {}, "application/json", b""))
    assert chunk(framed(b'{   "a": 1} ', client.heads[0][0].media)) == client.sent
    assert client.sent.count(b"1}") == 1
