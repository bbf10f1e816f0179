"""Keys choose partitions, the same way everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.event import Event
from headrace.model.partitioner import partition_of, split
from headrace.storage.log.partitioner import STICKY_EVENTS, Sticky

KEYS = st.one_of(st.none(), st.text(max_size=5))


def test_a_key_meets_the_partition_that_librdkafka_would_choose() -> None:
    # CRC-32 of "123456789" is the check value of the algorithm, 0xCBF43926.
    assert partition_of("123456789", 1_000_000) == 0xCBF43926 % 1_000_000
    assert partition_of("", 7) == 0


def test_without_a_key_the_caller_chooses() -> None:
    assert partition_of(None, 4, 6) == 2
    assert partition_of(None, 4) == 0


@given(keys=st.lists(KEYS), partitions=st.integers(1, 9), sticky=st.integers(0, 100))
def test_splitting_loses_nothing_and_keeps_order(
    keys: list[str | None], partitions: int, sticky: int
) -> None:
    events = [Event(b"%d" % index, key=key) for index, key in enumerate(keys)]
    found = split(events, partitions, sticky)
    assert sorted(int(e.value) for each in found.values() for e in each) == list(range(len(keys)))
    for partition, each in found.items():
        assert 0 <= partition < partitions
        assert [int(e.value) for e in each] == sorted(int(e.value) for e in each)
        assert all(partition_of(e.key, partitions, sticky) == partition for e in each)


def test_events_without_a_key_stay_together_and_move_on() -> None:
    sticky = Sticky()
    batch = [Event(b"x")] * STICKY_EVENTS
    assert [list(sticky.split(batch, 3)) for _ in range(4)] == [[0], [1], [2], [0]]
