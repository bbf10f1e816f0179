"""Bodies become events: framing, envelopes, codecs, ids."""

from __future__ import annotations

import pytest

from headrace.http.pipeline.event_bodies import CHECKS, envelopes, lines, with_ids
from headrace.model.errors import Invalid, TooLarge
from headrace.model.event import Event

JSON, TEXT, BYTES = CHECKS["json"], CHECKS["text"], CHECKS["bytes"]


def test_each_line_is_a_value_with_its_bytes_kept() -> None:
    events = lines(b'{"a": 1}\r\n\n  [2] \n3', "k", JSON)
    assert [event.value for event in events] == [b'{"a": 1}', b"[2]", b"3"]
    assert {event.key for event in events} == {"k"}


def test_a_wrong_line_is_named_by_its_number() -> None:
    with pytest.raises(Invalid, match="line 3: "):
        lines(b"1\n2\n{no}\n4", None, JSON)


def test_an_envelope_says_key_time_id_and_headers() -> None:
    body = (
        b'{"value": {"a":1}, "key": "k", "time": 1.5, "id": "x", "headers": {"h": "1"},'
        b' "type": "t", "source": "s"}'
    )
    (event,) = envelopes(body, "other", JSON)
    assert event == Event(b'{"a":1}', "k", 1_500_000, "x", {"h": "1"}, "t", "s")


def test_an_envelope_without_a_key_takes_the_one_of_the_request() -> None:
    (event,) = envelopes(b'{"value":1}', "k", JSON)
    assert event.key == "k"


def test_a_time_may_be_rfc3339() -> None:
    (event,) = envelopes(b'{"value":1,"time":"1970-01-01T01:00:01+01:00"}', None, JSON)
    assert event.time == 1_000_000


def test_text_and_bytes_travel_in_envelopes_as_they_are() -> None:
    events = envelopes(b'{"value_text":"{not json"}\n{"value_base64":"AP8="}', None, BYTES)
    assert [event.value for event in events] == [b"{not json", b"\x00\xff"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", "exactly one of"),
        (b'{"value":1,"value_text":"x"}', "exactly one of"),
        (b'{"value":1,"keys":"x"}', "unknown field `keys`"),
        (b'{"value":1,"key":7}', "Expected `str"),
        (b'{"value":1,"time":"yesterday"}', "not an envelope"),
        (b'{"value":1,"time":"2026-01-01T00:00:00"}', "no offset from UTC"),
        (b'{"value":1,"time":1e300}', "divide milliseconds"),
        (b'{"value":1,"time":1767225600000}', "divide milliseconds"),
        (b'{"value":1,"time":-1}', "not an envelope"),
        (b'{"value_base64":"??"}', "not base64"),
        (b'{"value":NaN}', "not an envelope"),
        (b'{"value":{"a":1,"a":2}}', "twice"),
        (b'{"value":"\\ud800"}', ""),
        (b"[1]", "not an envelope"),
        (b"\xff", "not an envelope"),
        (b'{"value":1,"key":"\xff"}', ""),
        (b'{"value":"\xff"}', ""),
        (b'{"value":' + b"[" * 5_000 + b"]" * 5_000 + b"}", ""),
    ],
)
def test_what_is_no_envelope_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(Invalid, match="line 2: ") as error:
        envelopes(b'{"value":1}\n' + line, None, JSON)
    assert message in str(error.value)


def test_more_than_ten_thousand_events_are_too_many() -> None:
    assert len(lines(b"1\n" * 10_000, None, JSON)) == 10_000
    with pytest.raises(TooLarge, match="10,000"):
        lines(b"1\n" * 10_001, None, JSON)


def test_values_must_be_what_the_stream_holds() -> None:
    TEXT("ä".encode())
    with pytest.raises(Invalid, match="UTF-8"):
        TEXT(b"\xff")
    with pytest.raises(Invalid, match="empty"):
        JSON(b"  ")
    CHECKS["msgpack"](b"\x93\x01\x02\x03")
    with pytest.raises(Invalid, match="msgpack"):
        CHECKS["msgpack"](b"\x93\x01")
    BYTES(b"")


def test_an_idempotency_key_gives_ids_to_events_that_have_none() -> None:
    events = [Event(b"1"), Event(b"2", id="own"), Event(b"3")]
    assert [event.id for event in with_ids(events, "t")] == ["t/0", "own", "t/2"]
    assert with_ids([Event(b"1")], '"t"')[0].id == "t"


def test_the_key_of_one_event_is_not_an_event_of_another_keys_batch() -> None:
    batch = {event.id for event in with_ids([Event(b"1"), Event(b"2")], "t")}
    for token in ("t/0", "t%2F0", "t/1"):
        assert with_ids([Event(b"1")], token)[0].id not in batch
    assert with_ids([Event(b"1")], "a/b")[0].id != with_ids([Event(b"1")], "a%2Fb")[0].id


@pytest.mark.parametrize("token", ["", '""', "x" * 201])
def test_an_idempotency_key_has_a_length(token: str) -> None:
    with pytest.raises(Invalid, match="Idempotency-Key"):
        with_ids([Event(b"1")], token)


def test_the_epoch_is_a_time_and_none_is_none() -> None:
    for time in (b"0", b"0.0", b'"1970-01-01T00:00:00Z"'):
        (event,) = envelopes(b'{"value":1,"time":' + time + b"}", None, JSON)
        assert event.time == 0
    (event,) = envelopes(b'{"value":1}', None, JSON)
    assert event.time is None


def test_an_empty_key_is_a_key() -> None:
    (event,) = envelopes(b'{"value":1,"key":""}', "k", JSON)
    assert event.key == ""
