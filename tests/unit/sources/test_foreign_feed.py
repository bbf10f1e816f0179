from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Corrupt
from headrace.model.event import Event
from headrace.model.policy import (
    MAX_BATCH_BYTES,
    MAX_EVENT_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_KEY_BYTES,
)
from headrace.model.record import decode_events, encode_events
from headrace.sources.foreign.base import ForeignMessage
from headrace.sources.foreign.feed import (
    HEADERS_DROPPED,
    MAX_LEFT,
    TOO_LARGE,
    FeedState,
    decode_state,
    fitted,
    judge,
    parts,
)


def message(mark: str, *, repeated: bool = True) -> ForeignMessage[int]:
    return ForeignMessage(Event(mark.encode()), 0, mark=mark, repeated=repeated)


def marks(messages: Sequence[ForeignMessage[int]]) -> list[str]:
    return [each.mark for each in messages]


def test_a_message_with_a_known_mark_is_not_fresh() -> None:
    fresh, state = judge([message("a"), message("b")], FeedState(), keep=10)
    assert marks(fresh) == ["a", "b"]
    fresh, state = judge([message("b"), message("c")], state, keep=10)
    assert marks(fresh) == ["c"]


def test_a_message_delivered_twice_in_one_batch_is_taken_once() -> None:
    fresh, _ = judge([message("a"), message("a")], FeedState(), keep=10)
    assert marks(fresh) == ["a"]


def test_a_message_without_a_mark_is_always_fresh() -> None:
    fresh, state = judge([message(""), message("")], FeedState(), keep=10)
    assert len(fresh) == 2
    assert state == FeedState()


def test_a_mark_used_again_for_a_new_message_does_not_hide_it() -> None:
    _, state = judge([message("7", repeated=False)], FeedState(), keep=10)
    fresh, state = judge([message("7", repeated=False)], state, keep=10)
    assert marks(fresh) == ["7"]
    fresh, _ = judge([message("7", repeated=True)], state, keep=10)
    assert fresh == []


def test_places_move_with_the_last_message_of_their_part() -> None:
    given = [ForeignMessage(Event(b""), None, place=("0", str(offset))) for offset in (4, 5)]
    fresh, state = judge(given, FeedState({"0": "3", "1": "9"}), keep=10)
    assert len(fresh) == 2
    assert state.places == {"0": "5", "1": "9"}


def test_marks_of_a_former_run_outlast_what_passes_them() -> None:
    _, state = judge([message("old")], FeedState(), keep=2)
    state = state.inherited()
    for number in range(50):
        _, state = judge([message(f"new-{number}")], state, keep=2)
    fresh, _ = judge([message("old")], state, keep=2)
    assert fresh == []


def test_what_is_remembered_has_a_bound_however_often_the_node_dies() -> None:
    state = FeedState()
    for run in range(60):
        given = [message(f"{run}-{number}") for number in range(100)]
        _, state = judge(given, state.inherited(), keep=50)
    assert len(state.marks) == 50
    assert len(state.left) <= MAX_LEFT


def test_a_checkpoint_that_is_not_ours_is_reported() -> None:
    with pytest.raises(Corrupt, match="the checkpoint of `s` cannot be read"):
        decode_state(b"\xc1", "s")


@given(
    st.lists(st.tuples(st.integers(1, 8), st.booleans(), st.booleans()), min_size=1, max_size=30)
)
def test_a_queue_that_delivers_again_after_every_death_is_read_once(
    lives: list[tuple[int, bool, bool]],
) -> None:
    # Given a queue of which at most `keep` messages are in flight,
    keep, count = 8, 60
    queue = [str(number) for number in range(count)]
    stored, log = FeedState(), list[str]()
    # when the node dies before or after its append, or before its acknowledgement lands,
    for size, appends, acknowledges in [*lives, *[(8, True, True)] * count]:
        state = stored.inherited()
        batch = queue[:size]
        fresh, state = judge([message(each) for each in batch], state, keep=keep)
        if not appends:
            continue
        log += marks(fresh)
        if fresh:
            stored = decode_state(msgspec.msgpack.encode(state), "s")
        if acknowledges:
            queue = queue[size:]
    # then everything is in the log once, in order.
    assert log == [str(number) for number in range(count)]


@given(st.lists(st.integers(0, MAX_BATCH_BYTES // 5), max_size=12))
def test_parts_keep_every_message_in_order_and_fit_an_append(sizes: list[int]) -> None:
    value = bytes(max(sizes, default=0))
    messages = [ForeignMessage(Event(value[:size], id=str(n)), n) for n, size in enumerate(sizes)]
    found = list(parts(messages))
    assert [each.receipt for part in found for each in part] == list(range(len(sizes)))
    assert all(part for part in found)
    bodies = [encode_events([fitted(each.event) for each in part]) for part in found]
    assert all(len(body) <= MAX_BATCH_BYTES for body in bodies)


def test_an_event_that_fits_is_left_as_it_is() -> None:
    event = Event(b"x" * MAX_EVENT_BYTES, key="k" * MAX_KEY_BYTES, headers={"a": "b"}, id="7")
    assert fitted(event) == event


def test_a_value_too_large_goes_and_its_size_is_said() -> None:
    found = fitted(Event(b"x" * (MAX_EVENT_BYTES + 1), key="k", id="7", headers={"a": "b"}))
    assert found == Event(
        b"", key="k", id="7", headers={"a": "b", TOO_LARGE: str(MAX_EVENT_BYTES + 1)}
    )


def test_headers_too_many_or_too_long_go_and_their_number_is_said() -> None:
    many = {str(number): "x" for number in range(MAX_HEADERS)}
    assert fitted(Event(b"", headers=many)).headers == {HEADERS_DROPPED: str(MAX_HEADERS)}
    long = {"a": "x" * MAX_HEADER_BYTES}
    assert fitted(Event(b"", headers=long)).headers == {HEADERS_DROPPED: "1"}


def test_long_keys_stay_apart_in_a_short_form() -> None:
    one, other = (fitted(Event(b"", key="k" * MAX_KEY_BYTES + end)).key for end in "ab")
    assert one is not None
    assert other is not None
    assert one != other
    assert len(one) == len(other) == 32


@pytest.mark.parametrize("time", [-1, 253_402_300_800_000_000, 18_446_744_073_709_551_614_000])
def test_a_time_that_is_no_date_counts_as_none(time: int) -> None:
    event = fitted(Event(b"1", time=time))
    assert event.time is None
    assert decode_events(encode_events([event])) == [event]
