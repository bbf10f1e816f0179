"""Parked keys: rows that sort by offset within a key, and open again to what was laid down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import TROUBLE

from headrace.delivery.parked import (
    chunk_of,
    decode_event,
    encode_event,
    lane_name,
    lane_of,
    parked_end,
    parked_key_key,
    parked_row_key,
)
from headrace.model.effects import DeadEvent
from headrace.model.event import Event
from headrace.model.record import Position

keys = st.one_of(st.none(), st.text(max_size=8))
events = st.builds(Event, value=st.binary(max_size=20), key=keys, time=st.integers(0, 1 << 50))


@given(events, st.integers(0, 1 << 40))
def test_an_event_comes_back_byte_for_byte_where_it_stood(event: Event, offset: int) -> None:
    row = DeadEvent(
        "a.f", Position("s", 3, offset), encode_event(event), TROUBLE, 2, 11, 22, 5, "root"
    )

    chunk = chunk_of(row)

    assert decode_event(row.event) == event
    assert chunk.events() == [event]
    assert (chunk.stream, chunk.partition, chunk.start, chunk.size) == ("s", 3, offset, 1)
    assert (chunk.appended, chunk.hops, chunk.origin) == (11, 5, "root")


@given(st.text(max_size=20))
def test_a_lane_tells_its_key(key: str) -> None:
    assert lane_name(lane_of(Event(b"", key), 9)) == key


def test_an_event_without_a_key_is_a_lane_of_its_own() -> None:
    assert lane_of(Event(b""), 1) != lane_of(Event(b""), 2)
    assert lane_name(lane_of(Event(b""), 1)) is None


@given(
    st.lists(st.tuples(st.text(max_size=4), st.integers(0, 1 << 40)), max_size=12),
    st.text(max_size=4),
)
def test_a_key_finds_its_own_rows_in_order_and_no_others(
    rows: list[tuple[str, int]], key: str
) -> None:
    stored = sorted(
        (parked_row_key("a.f", "s", 0, lane_of(Event(b"", each), offset), offset), each, offset)
        for each, offset in set(rows)
    )
    low = parked_key_key("a.f", "s", 0, lane_of(Event(b"", key), 0))

    found = [(each, off) for packed, each, off in stored if low <= packed < parked_end(low)]

    assert found == sorted((each, offset) for each, offset in set(rows) if each == key)
