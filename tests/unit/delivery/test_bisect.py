"""Bisecting: the poison is found in few runs, and nobody else pays for it."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import TROUBLE, offsets_of, unit

from headrace.delivery.partition.bisect import halves
from headrace.delivery.partition.settle import settle
from headrace.delivery.unit import Unit
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Returned
from headrace.model.policy import Retry

SPEC = FunctionSpec(name="a.f", app="a", batch_size=200, retry=Retry(attempts=1))


@given(st.integers(2, 300), st.integers(0, 1_000))
def test_halves_are_the_whole_in_order(count: int, first: int) -> None:
    before, behind = halves(unit(count, first))

    assert offsets_of(before.chunks + behind.chunks) == list(range(first, first + count))
    assert abs(before.size - behind.size) <= 1
    assert before.attempts == behind.attempts == 0


def test_a_single_event_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        halves(unit(1))


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_poison_is_found_within_the_bound_and_nothing_is_lost(case: tuple[int, set[int]]) -> None:
    count, poison = case
    waiting: list[Unit] = [unit(count)]
    runs, finished, lost = 0, list[int](), list[int]()
    while waiting:
        running = waiting.pop(0)
        runs += 1
        failed = not poison.isdisjoint(offsets_of(running.chunks))
        outcome = Returned(error=TROUBLE) if failed else Returned()
        verdict = settle(running, outcome, SPEC, now=0, draw=lambda low, high: low)
        finished += offsets_of(verdict.finished)
        lost += [given_up.chunk.start for given_up in verdict.given_up]
        assert {given_up.attempts for given_up in verdict.given_up} <= {1}
        waiting[:0] = verdict.again

    assert lost == sorted(poison)
    assert finished == [offset for offset in range(count) if offset not in poison]
    assert runs <= len(poison) * (2 * ceil(log2(count)) + 1) + 1
