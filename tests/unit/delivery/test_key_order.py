"""Turns: pieces of a failed batch keep the order of each key, however many workers there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import chunk

from headrace.delivery.partition.key_order import keys_of, turn
from headrace.delivery.unit import FOREVER, Unit

keys = st.sampled_from([None, "a", "b", "c"])
units = st.lists(
    st.tuples(st.lists(keys, min_size=1, max_size=3), st.sampled_from([0, 5, 50, FOREVER])),
    max_size=6,
)


def made(given_units: list[tuple[list[str | None], int]]) -> list[Unit]:
    return [
        Unit((chunk(len(held), place * 10, keys=held),), due=due)
        for place, (held, due) in enumerate(given_units)
    ]


@given(units, units)
def test_whoever_goes_is_due_and_overtakes_none_of_its_keys(
    waiting: list[tuple[list[str | None], int]], busy: list[tuple[list[str | None], int]]
) -> None:
    pending, running = made(waiting), made(busy)

    place, due = turn(pending, running, 10, by_key=True)

    def held_up(index: int) -> bool:
        others = (*running, *pending[:index])
        return any(keys_of(pending[index]) & keys_of(other) for other in others)

    if place is not None:
        assert pending[place].due <= 10
        assert not held_up(place)
    else:
        free = [unit.due for index, unit in enumerate(pending) if not held_up(index)]
        assert all(each > 10 for each in free)
        assert due == min(free, default=FOREVER)


def test_without_an_order_the_first_that_is_due_goes() -> None:
    pending = made([(["a"], 50), (["a"], 0)])

    assert turn(pending, (), 10, by_key=False) == (1, 10)
    assert turn(pending, (), 10, by_key=True) == (None, 50)


def test_events_without_a_key_are_in_nobodys_way_unless_they_count_as_one_key() -> None:
    pending, running = made([([None], 0)]), made([([None, "b"], 0)])

    assert turn(pending, running, 10, by_key=True) == (0, 10)
    assert turn(pending, running, 10, by_key=True, together=True) == (None, FOREVER)
