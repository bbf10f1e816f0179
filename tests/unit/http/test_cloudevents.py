"""CloudEvents 1.0 in all three modes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from headrace.http.pipeline.cloudevents import ValueFormat, batch, binary, is_binary, structured
from headrace.http.pipeline.event_bodies import CHECKS, NOTHING
from headrace.model.errors import Invalid
from headrace.model.event import Event

VALUES = {codec: ValueFormat(CHECKS[codec], NOTHING[codec]) for codec in CHECKS}
JSON, BYTES = VALUES["json"], VALUES["bytes"]
REQUIRED = {b"ce-specversion": b"1.0", b"ce-id": b"1", b"ce-source": b"/shop", b"ce-type": b"order"}


def cloudevent(**more: Any) -> bytes:
    whole: dict[str, Any] = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "order",
        "data": {"a": 1},
    }
    whole |= more
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def test_a_structured_event_keeps_its_attributes() -> None:
    event = structured(
        cloudevent(time="2026-01-01T00:00:00Z", subject="s", tenant="t", weight=3, urgent=True),
        None,
        JSON,
    )
    assert event == Event(
        value=b'{"a": 1}',
        key="s",
        time=1_767_225_600_000_000,
        id="/shop#1",
        headers={
            "ce-subject": "s",
            "ce-tenant": "t",
            "ce-weight": "3",
            "ce-urgent": "true",
            "ce-id": "1",
        },
        type="order",
        source="/shop",
    )


def test_the_key_is_the_requests_then_the_partition_key_then_the_subject() -> None:
    body = cloudevent(partitionkey="p", subject="s")
    assert structured(body, "k", JSON).key == "k"
    assert structured(body, None, JSON).key == "p"
    assert structured(cloudevent(), None, JSON).key is None


def test_events_of_two_sources_with_one_id_are_two_events() -> None:
    assert (
        structured(cloudevent(source="/a"), None, JSON).id
        != structured(cloudevent(source="/b"), None, JSON).id
    )


def test_a_fence_in_a_source_or_an_id_makes_no_two_events_one() -> None:
    pairs = [("a#b", "c"), ("a", "b#c"), ("a%23b", "c"), ("a", "b%23c"), ("a%2523b", "c")]
    ids = {structured(cloudevent(source=source, id=id), None, JSON).id for source, id in pairs}
    assert len(ids) == len(pairs)


def test_a_binary_event_keeps_its_body_as_it_is() -> None:
    headers = {
        b"ce-specversion": b"1.0",
        b"ce-id": b"1",
        b"ce-source": b"/shop",
        b"ce-type": b"order",
        b"ce-subject": b"%C3%A4",
        b"content-type": b"image/png",
    }
    assert is_binary(headers)
    event = binary(headers, b"\x89PNG", None, BYTES)
    assert event.value == b"\x89PNG"
    assert event.key == "ä"
    assert event.headers == {
        "ce-subject": "ä",
        "ce-datacontenttype": "image/png",
        "ce-id": "1",
    }


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro € 😀".encode(), "Euro € 😀"),
        ("déjà".encode("latin-1"), "déjà"),
        (b'"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
        (b'"100%25"', "100%"),
        (b"%2525", "%25"),
        (b"%22a%22", '"a"'),
        (b'a"b', 'a"b'),
        (b'"', '"'),
        (b'"a" or "b"', '"a" or "b"'),
        (b"100%", "100%"),
        (b"\\n", "\\n"),
    ],
)
def test_a_header_is_unquoted_once_and_percent_decoded_once(raw: bytes, meant: str) -> None:
    event = binary({**REQUIRED, b"ce-note": raw}, b"1", None, JSON)
    assert (event.headers or {})["ce-note"] == meant


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.binary())
def test_what_the_python_sdk_writes_is_read_as_it_was_meant(text: str, data: bytes) -> None:
    reported = CloudEvent(
        {"id": text, "source": text, "type": text, "subject": text, "note": text}, data
    )
    message = to_binary(reported, JSONFormat())
    headers = {name.encode(): value.encode("ascii") for name, value in message.headers.items()}
    binary_event = binary(headers, message.body, None, BYTES)
    structured_event = structured(to_structured(reported, JSONFormat()).body, None, BYTES)
    for event in (binary_event, structured_event):
        assert (event.value, event.source, event.type, event.key) == (data, text, text, text)
        assert event.headers == {"ce-id": text, "ce-subject": text, "ce-note": text}


def test_a_header_of_bytes_that_are_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="`ce-note`"):
        binary({**REQUIRED, b"ce-note": b"%C0%A0"}, b"1", None, JSON)


@pytest.mark.parametrize(
    ("codec", "value"), [("json", b"null"), ("text", b""), ("msgpack", b"\xc0"), ("bytes", b"")]
)
def test_an_event_needs_no_data(codec: str, value: bytes) -> None:
    assert binary(REQUIRED, b"", None, VALUES[codec]).value == value
    assert structured(cloudevent(data=...), None, VALUES[codec]).value == value
    assert structured(cloudevent(data=None), None, JSON).value == b"null"


def test_binary_data_in_a_structured_event_is_decoded() -> None:
    assert structured(cloudevent(data=..., data_base64="AP8="), None, BYTES).value == b"\x00\xff"


def test_data_that_is_text_is_meant_without_its_quotes() -> None:
    body = cloudevent(data="<a/>", datacontenttype="application/xml")
    assert structured(body, None, BYTES).value == b"<a/>"
    assert structured(cloudevent(data="x"), None, JSON).value == b'"x"'


def test_a_batch_is_taken_whole_and_a_wrong_one_is_named() -> None:
    body = b"[" + cloudevent(id="1") + b"," + cloudevent(id="2") + b"]"
    assert [event.id for event in batch(body, None, JSON)] == ["/shop#1", "/shop#2"]
    with pytest.raises(Invalid, match=r"event 1: .*no `type`"):
        batch(b"[" + cloudevent() + b"," + cloudevent(type=...) + b"]", None, JSON)
    assert batch(b"[]", None, JSON) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (cloudevent(specversion="0.3"), "reads CloudEvents `1.0`"),
        (cloudevent(specversion=...), "specversion"),
        (cloudevent(id=""), "no `id`"),
        (cloudevent(source=...), "no `source`"),
        (cloudevent(time="noon"), "not an RFC 3339 time"),
        (cloudevent(Tenant="t"), "lower-case"),
        (cloudevent(tenant={"a": 1}), "neither text"),
        (cloudevent(data_base64="AP8="), "not both"),
        (cloudevent(data=..., data_base64="?"), "not base64"),
        (b"[]", "JSON object"),
        (b"", "JSON"),
    ],
)
def test_what_is_no_cloudevent_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(Invalid) as error:
        structured(body, None, JSON)
    assert message in str(error.value)
