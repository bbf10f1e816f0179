"""Events and batches as a handler sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from headrace.model.event import Event as Fact
from headrace.model.record import Chunk, encode_events
from headrace.sdk.batch import Batch, Cursor
from headrace.sdk.event import Event, Undecodable, open_chunk


class Order(msgspec.Struct):
    id: int


_order = msgspec.json.Decoder(Order).decode


def chunk_of(facts: list[Fact], low: int = 0, high: int | None = None, first: int = 10) -> Chunk:
    end = len(facts) if high is None else high
    return Chunk("orders", 3, first, len(facts), encode_events(facts), 5_000_000, low, end)


def opened(facts: list[Fact], decode: Callable[[bytes], Any] = _order) -> list[Event[Any]]:
    return open_chunk(chunk_of(facts), 0, decode)


def test_an_event_knows_what_and_where_it_is() -> None:
    fact = Fact(b'{"id":7}', "k", 1_500_000, "mine", {"a": "b"}, "sold", "till")
    (event,) = opened([fact])
    assert event.value == Order(7)
    assert event.raw == b'{"id":7}'
    assert (event.stream, event.partition, event.offset) == ("orders", 3, 10)
    assert (event.key, event.id, event.type, event.source) == ("k", "mine", "sold", "till")
    assert event.headers == {"a": "b"}
    assert event.timestamp == 1.5
    assert event.time == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_what_the_producer_left_out_comes_from_the_log() -> None:
    (event,) = opened([Fact(b"{}")])
    assert event.id == event.position == "orders/3/10"
    assert event.timestamp == 5.0
    assert event.headers == {}
    assert event.key is None


def test_an_id_that_is_written_like_a_position_is_not_another_events() -> None:
    first, second = opened([Fact(b"{}"), Fact(b"{}", id="orders/3/10")])
    assert first.id != second.id == ":orders/3/10"


def test_headers_cannot_be_changed() -> None:
    (event,) = opened([Fact(b"{}", headers={"a": "b"})])
    with pytest.raises(TypeError):
        event.headers["a"] = "c"  # type: ignore[index]


def test_a_value_is_opened_once() -> None:
    calls: list[bytes] = []

    def decode(raw: bytes) -> int:
        calls.append(raw)
        return 1

    (event,) = opened([Fact(b"x")], decode)
    assert not calls
    assert event.value + event.value == 2
    assert calls == [b"x"]


def test_an_event_that_cannot_be_decoded_says_which_it_is() -> None:
    good, bad = opened([Fact(b'{"id":1}'), Fact(b'{"id":"x"}')])
    assert good.value == Order(1)
    with pytest.raises(
        Undecodable, match=r"`orders/3/11` cannot be decoded: Expected `int`"
    ) as caught:
        _ = bad.value
    assert caught.value.event is bad


@pytest.mark.parametrize(("low", "high"), [(0, 20), (0, 1), (7, 9), (19, 20), (3, 18)])
def test_a_window_on_a_blob_shows_only_its_events(low: int, high: int) -> None:
    facts = [Fact(b'{"id":%d}' % number) for number in range(20)]
    events = open_chunk(chunk_of(facts, low, high), 100, _order)
    assert [event.value.id for event in events] == list(range(low, high))
    assert [event.offset for event in events] == list(range(10 + low, 10 + high))
    assert [event._index for event in events] == list(range(100, 100 + high - low))


def test_offsets_with_gaps_are_kept() -> None:
    facts = [Fact(b"1"), Fact(b"2"), Fact(b"3")]
    chunk = Chunk("s", 0, 4, 3, encode_events(facts), 0, 1, 3, offsets=(4, 9, 12))
    assert [event.offset for event in open_chunk(chunk, 5, _order)] == [9, 12]


def test_a_blob_cannot_bring_its_own_opened_value() -> None:
    body = msgspec.msgpack.encode(
        [[b'{"id":1}', None, 0, None, None, None, None, None, 9, "forged"]]
    )
    chunk = Chunk("orders", 0, 0, 1, body, 0, 0, 1)
    (event,) = open_chunk(chunk, 0, _order)
    assert event.value == Order(1)
    assert event._index == 0


def test_looping_moves_the_cursor_and_leaving_moves_it_back() -> None:
    cursor = Cursor()
    batch: Batch[Any] = Batch(opened([Fact(b"{}")] * 3), cursor)
    seen = [cursor.at for _ in batch]
    assert seen == [0, 1, 2]
    assert cursor.at == -1
    for _ in batch:
        break
    assert cursor.at == -1


def test_an_inner_loop_gives_the_cursor_back_to_the_outer_one() -> None:
    cursor = Cursor()
    batch: Batch[Any] = Batch(opened([Fact(b"{}")] * 2), cursor)
    seen = []
    for _ in batch:
        for _ in batch:
            pass
        seen.append(cursor.at)
    assert seen == [0, 1]


def test_a_batch_is_a_sequence() -> None:
    events = opened([Fact(b'{"id":%d}' % number) for number in range(4)])
    batch: Batch[Any] = Batch(events, Cursor())
    assert len(batch) == 4
    assert batch[-1] is events[3]
    assert batch[1:3] == events[1:3]
    assert [event.value.id for event in reversed(batch)] == [3, 2, 1, 0]
    assert events[2] in batch
