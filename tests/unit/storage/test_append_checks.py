"""Checks of appends, and small bodies made one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, decode_events, encode_events
from headrace.storage.log.append_checks import array_length, check_append, join_bodies

SPEC = StreamSpec(name="s")


@given(sizes=st.lists(st.sampled_from([1, 2, 15, 16, 40]), min_size=1, max_size=8))
def test_joined_bodies_hold_the_events_of_all_in_order(sizes: list[int]) -> None:
    events = [Event(b"%d" % number, key="k") for number in range(sum(sizes))]
    rest = list(events)
    bodies = []
    for size in sizes:
        bodies.append(encode_events(rest[:size]))
        del rest[:size]
    joined = join_bodies(bodies, len(events))
    assert decode_events(joined) == events
    assert joined == encode_events(events)


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_the_length_of_an_array_is_read_from_its_head(count: int) -> None:
    assert array_length(encode_events([Event(b"")] * count)) == count
    assert join_bodies([encode_events([Event(b"")] * count)], count) == encode_events(
        [Event(b"")] * count
    )


@given(body=st.binary(max_size=64))
def test_small_garbage_never_gets_in(body: bytes) -> None:
    try:
        events = decode_events(body)
    except Exception:  # noqa: BLE001 - whatever cannot be opened must be refused
        events = []
    append = Append("s", 0, 1, body)
    if len(events) == 1 and array_length(body) == 1:
        check_append(append, SPEC)
    else:
        with pytest.raises(Invalid):
            check_append(append, SPEC)


def test_an_append_of_no_events_is_refused() -> None:
    with pytest.raises(Invalid, match="0 events"):
        check_append(Append("s", 0, 0, encode_events([])), SPEC)
