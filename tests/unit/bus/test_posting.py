"""Requests to an HTTP target, read by the Python SDK of CloudEvents."""

from __future__ import annotations

from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from headrace.bus.http_target import HttpPoster, HttpRequest
from headrace.model.codec import encode_json
from headrace.model.event import Event
from headrace.model.invocation import BatchInvocation
from headrace.model.record import Chunk, encode_events
from headrace.model.triggers.bus import HttpTarget
from headrace.security.secrets import Secrets

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(TEXTS, TEXTS, TEXTS)
async def test_attributes_of_any_text_arrive_as_they_are(name: str, source: str, kind: str) -> None:
    sent: list[HttpRequest] = []

    async def post(request: HttpRequest) -> int:
        sent.append(request)
        return 202

    event = Event(encode_json({"a": 1}), None, 1_000_000, name, type=kind, source=source)
    chunk = Chunk("s", 0, 0, 1, encode_events([event]), 0, 0, 1)
    await HttpPoster(HttpTarget("http://localhost"), post, Secrets({}, {}))(
        BatchInvocation("f", chunks=(chunk,))
    )
    received = from_binary(HTTPMessage(sent[0].headers, sent[0].body), JSONFormat())
    assert (received.get_id(), received.get_source(), received.get_type()) == (name, source, kind)
    assert received.get_data() == {"a": 1}
