"""The rows of a throttle: each partition has its own, and none undoes another's."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from headrace.delivery.flow.limits import CLEAR_US, MICROS, FlowLimiter, Row
from headrace.delivery.flow.throttle_rows import ThrottleRows
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Delete, Put
from headrace.model.flow_control import Throttle
from headrace.model.function import FunctionSpec
from headrace.storage.kv.memory import MemoryStorage

NOW = 1_000 * MICROS
LATER = NOW + CLEAR_US + 10 * MICROS


def limiter(*, per_key: bool = False) -> FlowLimiter:
    """One that lets a run begin every five seconds."""
    throttle = Throttle(1, per=5, per_key=per_key)
    return FlowLimiter(FunctionSpec(name="a.f", app="a", throttle=throttle))


def rows_of(partition: int, flow: FlowLimiter) -> ThrottleRows:
    return ThrottleRows("a.f", "s", partition, flow)


def landed(*changes: tuple[Row, ...]) -> MemoryStorage:
    """A store in which these have landed, one after the other."""

    async def land() -> MemoryStorage:
        storage = MemoryStorage(SystemClock())
        for rows in changes:
            puts = tuple(row for row in rows if isinstance(row, Put))
            deletes = tuple(row for row in rows if isinstance(row, Delete))
            await storage.apply(Change(puts=puts, deletes=deletes))
        return storage

    return asyncio.run(land())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_partitions_whose_changes_overtake_each_other_lose_no_token(order: tuple[int, ...]) -> None:
    flow = limiter()
    first, second, third = (rows_of(partition, flow) for partition in range(3))
    flow.begin((), NOW)
    before = first.ahead((), NOW)
    assert first.clears(LATER)
    gone = first.cleared(LATER)
    flow.begin((), LATER)
    spent = second.ahead((), LATER)
    flow.begin((), LATER + 5 * MICROS)
    spent_again = third.ahead((), LATER + 5 * MICROS)

    changes = (gone, spent, spent_again)
    storage = landed(before, *(changes[place] for place in order))

    after_a_crash = limiter()
    asyncio.run(after_a_crash.load(storage, LATER + 6 * MICROS))
    assert after_a_crash.until(LATER + 6 * MICROS) == LATER + 10 * MICROS


def test_rows_of_buckets_that_are_full_are_deleted_and_no_others() -> None:
    flow = limiter(per_key=True)
    rows = rows_of(0, flow)
    flow.begin({"old", None}, NOW)
    flow.begin({"new"}, LATER)
    ahead = rows.ahead({"old", None}, NOW) + rows.ahead({"new"}, LATER)
    assert rows.clears(LATER)
    assert {row.key for row in rows.cleared(LATER)} == {row.key for row in ahead[:2]}
    assert rows.cleared(LATER) == ()
    assert flow.full_again({"old", "new"}) == {"old": 0, "new": LATER + 5 * MICROS}


def test_what_a_former_owner_wrote_is_loaded_and_deleted_once_it_is_full() -> None:
    flow = limiter(per_key=True)
    former = rows_of(0, flow)
    flow.begin({"x"}, NOW)
    ahead = former.ahead({"x"}, NOW)
    storage = landed(ahead, rows_of(1, flow).ahead({"x"}, NOW))

    rows = rows_of(0, limiter(per_key=True))
    asyncio.run(rows.load(storage, NOW))

    assert rows.cleared(NOW) == ()
    assert rows.clears(LATER)
    assert [row.key for row in rows.cleared(LATER)] == [row.key for row in ahead]


def test_a_bucket_that_is_used_again_keeps_its_row() -> None:
    flow = limiter()
    rows = rows_of(0, flow)
    flow.begin((), NOW)
    rows.ahead((), NOW)
    assert rows.clears(LATER)
    flow.begin((), LATER)
    rows.ahead((), LATER)
    assert rows.cleared(LATER) == ()
