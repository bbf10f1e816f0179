"""Fields of a record that a listener's pattern sees, whatever its stream is written in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.record import Chunk, encode_events
from headrace.patterns.record_filter import Selection


def chosen(pattern: dict[str, Any], *events: Event, packed: bool = False) -> set[int]:
    chunk = Chunk("s", 0, 0, len(events), encode_events(events), 5, 0, len(events))
    return Selection(pattern, msgpack={"s"} if packed else ())(chunk)


def test_a_value_of_msgpack_is_seen_as_the_json_it_would_be() -> None:
    values = ({"a": [1, {"b": "x"}]}, {"a": 2}, {"a": b"bytes"}, {1: "number"}, "text")
    events = [Event(msgspec.msgpack.encode(value)) for value in values]
    assert chosen({"value": {"a": {"b": ["x"]}}}, *events, packed=True) == {0}
    assert chosen({"value": {"a": [{"numeric": [">", 1]}]}}, *events, packed=True) == {1}
    assert chosen({"value": {"1": ["number"]}}, *events, packed=True) == {3}
    assert chosen({"value": ["text"]}, *events, packed=True) == {4}
    assert chosen({"value": {"a": [1]}}, Event(b"\xc1"), Event(b""), packed=True) == set()


def test_a_value_that_is_no_json_is_text_or_null() -> None:
    events = (Event(b'{"a": 1}'), Event(b"plain"), Event(b"\xff"))
    assert chosen({"value": {"a": [1]}}, *events) == {0}
    assert chosen({"value": [{"prefix": "pl"}]}, *events) == {1}
    assert chosen({"value": [None]}, *events) == {2}


def test_a_record_without_a_key_is_seen_without() -> None:
    events = (Event(b"1", "a"), Event(b"1"), Event(b"1", ""))
    assert chosen({"key": [None]}, *events) == {1}
    assert chosen({"key": ["", "a"]}, *events) == {0, 2}


@pytest.mark.parametrize(
    "pattern",
    [
        {"detail": {"total": [1]}},
        {"value": {"a": [1]}, "vaule": [1]},
        {"$or": [{"key": ["a"]}, {"total": [{"numeric": [">", 1]}]}]},
        {"total": [{"exists": False}]},
    ],
)
def test_a_pattern_over_what_no_record_has_is_refused(pattern: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"which no record has; it sees `key`, `value`"):
        Selection(pattern)


def test_the_time_of_an_event_that_gave_none_is_when_it_was_appended() -> None:
    events = (Event(b"1"), Event(b"1", time=0), Event(b"1", time=7))
    assert chosen({"time": [{"numeric": ["<", 5]}]}, *events) == {1}
    assert chosen({"time": [5]}, *events) == {0}
    assert chosen({"time": [None]}, *events) == set()
