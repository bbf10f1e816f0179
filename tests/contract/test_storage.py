"""What every storage promises."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.contract_drivers import STORAGES, AnyStorage, ManualClock, Place

from headrace.model.effects import Change, Check, Delete, Put, RangeCheck, Space, digest_of
from headrace.model.errors import Conflict, Fenced, TooLarge, Unavailable
from headrace.storage.kv.base import scan_pages
from headrace.storage.kv.keys import after, pack


def put(key: bytes, value: bytes, space: Space = Space.STATE) -> Change:
    return Change(puts=(Put(space, key, value),))


async def test_what_was_applied_is_read_back(storage: AnyStorage) -> None:
    await storage.apply(put(b"key", b"value"))
    assert await storage.get(Space.STATE, b"key") == b"value"


async def test_what_was_never_put_is_absent(storage: AnyStorage) -> None:
    assert await storage.get(Space.STATE, b"key") is None


async def test_absence_does_not_stick(storage: AnyStorage) -> None:
    assert await storage.get(Space.STATE, b"key") is None
    await storage.apply(put(b"key", b"value"))
    assert await storage.get(Space.STATE, b"key") == b"value"


async def test_the_same_key_in_two_spaces_is_two_rows(storage: AnyStorage) -> None:
    await storage.apply(Change(puts=tuple(Put(space, b"key", space.encode()) for space in Space)))
    for space in Space:
        assert await storage.get(space, b"key") == space.encode()


async def test_a_value_may_be_empty_and_is_not_absent(storage: AnyStorage) -> None:
    await storage.apply(put(b"key", b""))
    assert await storage.get(Space.STATE, b"key") == b""


async def test_a_value_may_be_large(storage: AnyStorage) -> None:
    value = bytes(range(256)) * 8192
    await storage.apply(put(b"key", b"small"))
    await storage.apply(put(b"key", value))
    assert await storage.get(Space.STATE, b"key") == value


async def test_deleting_removes_and_deleting_again_is_fine(storage: AnyStorage) -> None:
    await storage.apply(put(b"key", b"value"))
    for _ in range(2):
        await storage.apply(Change(deletes=(Delete(Space.STATE, b"key"),)))
        assert await storage.get(Space.STATE, b"key") is None
    assert await storage.scan(Space.STATE, b"") == []


async def test_a_broken_check_is_a_conflict_and_nothing_lands(storage: AnyStorage) -> None:
    await storage.apply(put(b"version", b"1"))
    change = Change(
        checks=(Check(Space.STATE, b"version", b"0"),),
        puts=(Put(Space.STATE, b"other", b"x"),),
        deletes=(Delete(Space.STATE, b"version"),),
    )
    with pytest.raises(Conflict, match="state"):
        await storage.apply(change)
    assert await storage.get(Space.STATE, b"other") is None
    assert await storage.get(Space.STATE, b"version") == b"1"


async def test_a_broken_fence_is_fenced(storage: AnyStorage) -> None:
    await storage.apply(put(b"epoch", b"2"))
    change = Change(
        checks=(Check(Space.STATE, b"epoch", b"1", fence=True),),
        puts=(Put(Space.STATE, b"other", b"x"),),
    )
    with pytest.raises(Fenced):
        await storage.apply(change)
    assert await storage.get(Space.STATE, b"other") is None


async def test_a_check_looks_at_the_beginning_only(storage: AnyStorage) -> None:
    await storage.apply(put(b"key", b"0001rest"))
    await storage.apply(
        Change(
            checks=(Check(Space.STATE, b"key", b"0001"),),
            puts=(Put(Space.STATE, b"key", b"0002"),),
        )
    )
    assert await storage.get(Space.STATE, b"key") == b"0002"


async def test_a_check_for_absence_holds_once(storage: AnyStorage) -> None:
    claim = Change(
        checks=(Check(Space.META, b"key", None),), puts=(Put(Space.META, b"key", b"mine"),)
    )
    await storage.apply(claim)
    with pytest.raises(Conflict):
        await storage.apply(claim)


async def test_checks_are_judged_before_the_change_writes(storage: AnyStorage) -> None:
    change = Change(
        checks=(Check(Space.STATE, b"key", b"new"),), puts=(Put(Space.STATE, b"key", b"new"),)
    )
    with pytest.raises(Conflict):
        await storage.apply(change)


async def test_of_many_rivals_at_once_exactly_one_lands(storage: AnyStorage) -> None:
    rivals = [
        Change(
            checks=(Check(Space.META, b"lock", None),),
            puts=(Put(Space.META, b"lock", b"%d" % each), Put(Space.STATE, b"%d" % each, b"x")),
        )
        for each in range(20)
    ]
    results = await asyncio.gather(*map(storage.apply, rivals), return_exceptions=True)
    won = [index for index, result in enumerate(results) if not isinstance(result, Exception)]
    assert len(won) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert await storage.get(Space.META, b"lock") == b"%d" % won[0]
    assert [key for key, _ in await storage.scan(Space.STATE, b"")] == [b"%d" % won[0]]


async def test_changes_given_together_land_in_the_order_given(storage: AnyStorage) -> None:
    steps = [
        Change(
            checks=(Check(Space.STATE, b"count", b"%d" % each if each else None),),
            puts=(Put(Space.STATE, b"count", b"%d" % (each + 1)),),
        )
        for each in range(50)
    ]
    await asyncio.gather(*map(storage.apply, steps))
    assert await storage.get(Space.STATE, b"count") == b"50"


async def test_a_range_is_as_it_was_seen_or_nothing_lands(storage: AnyStorage) -> None:
    for key in (b"b", b"c", b"d"):
        await storage.apply(put(key, b"version1 of it"))
    seen = await storage.scan(Space.STATE, b"b", b"d")
    as_seen = RangeCheck(Space.STATE, b"b", b"d", len(seen), digest_of(seen))
    mine = Change(puts=(Put(Space.STATE, b"mine", b"1"),), ranges=(as_seen,))
    await storage.apply(mine)
    for change, back in (
        (put(b"bb", b"version1"), Change(deletes=(Delete(Space.STATE, b"bb"),))),
        (Change(deletes=(Delete(Space.STATE, b"c"),)), put(b"c", b"version1 again")),
        (put(b"c", b"version2"), put(b"c", b"version1")),
    ):
        await storage.apply(change)
        with pytest.raises(Conflict):
            await storage.apply(mine)
        await storage.apply(back)
        await storage.apply(mine)
    # What is beside it, or with it in one change, is not in it.
    await storage.apply(put(b"d", b"version2"))
    await storage.apply(put(b"a", b"version2"))
    await storage.apply(Change(puts=(Put(Space.STATE, b"bb", b"1"),), ranges=(as_seen,)))
    with pytest.raises(Conflict):
        await storage.apply(mine)


async def test_of_rivals_that_saw_an_empty_range_one_lands(storage: AnyStorage) -> None:
    empty = RangeCheck(Space.STATE, b"seat/", b"seat0", 0, digest_of(()))

    async def take(name: bytes) -> bool:
        try:
            change = Change(puts=(Put(Space.STATE, b"seat/" + name, name),), ranges=(empty,))
            await storage.apply(change)
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(take(b"%d" % n) for n in range(8)))
    assert sum(won) == 1
    assert len(await storage.scan(Space.STATE, b"seat/", b"seat0")) == 1


async def test_a_range_to_the_end_counts_what_is_far_behind(storage: AnyStorage) -> None:
    empty = RangeCheck(Space.STATE, b"x", None, 0, digest_of(()))
    await storage.apply(Change(puts=(Put(Space.STATE, b"a", b"1"),), ranges=(empty,)))
    await storage.apply(put(b"\xff\xff", b"1"))
    with pytest.raises(Conflict):
        await storage.apply(Change(puts=(Put(Space.STATE, b"a", b"2"),), ranges=(empty,)))
    assert await storage.get(Space.STATE, b"a") == b"1"


async def test_get_many_answers_in_the_order_asked(storage: AnyStorage) -> None:
    await storage.apply(
        Change(puts=tuple(Put(Space.STATE, b"%d" % each, b"v%d" % each) for each in range(1_000)))
    )
    keys = [b"%d" % each for each in (5, 3, 2_000, 3)]
    assert await storage.get_many(Space.STATE, keys) == [b"v5", b"v3", None, b"v3"]
    everything = [b"%d" % each for each in range(1_200)]
    found = await storage.get_many(Space.STATE, everything)
    assert found == [b"v%d" % each for each in range(1_000)] + [None] * 200
    assert await storage.get_many(Space.STATE, []) == []


async def test_scan_is_ascending_half_open_and_limited(storage: AnyStorage) -> None:
    keys = [b"a", b"a\x00", b"b", b"ba", b"\xff", b"\x00"]
    await storage.apply(Change(puts=tuple(Put(Space.DEAD, key, key) for key in keys)))
    ordered = sorted(keys)
    assert [key for key, _ in await storage.scan(Space.DEAD, b"")] == ordered
    assert [key for key, _ in await storage.scan(Space.DEAD, b"a", b"ba")] == [
        b"a",
        b"a\x00",
        b"b",
    ]
    assert [key for key, _ in await storage.scan(Space.DEAD, b"", limit=2)] == ordered[:2]
    assert await storage.scan(Space.DEAD, b"x", b"a") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
async def test_pages_hold_every_pair_once_and_all_but_the_last_are_full(
    storage: AnyStorage, limit: int
) -> None:
    keys = sorted([b"a", b"a\x00", b"b", b"ba", b"\xff", b"\x00"])
    await storage.apply(Change(puts=tuple(Put(Space.DEAD, key, key) for key in keys)))
    pages = [page async for page in scan_pages(storage, Space.DEAD, b"", limit=limit)]
    assert [key for page in pages for key, _ in page] == keys
    assert all(len(page) == limit for page in pages[:-1])
    within = [page async for page in scan_pages(storage, Space.DEAD, b"a", b"ba", limit=limit)]
    assert [key for page in within for key, _ in page] == [b"a", b"a\x00", b"b"]
    assert [page async for page in scan_pages(storage, Space.PARKED, b"", limit=limit)] == []


async def test_no_more_is_read_than_was_allowed(storage: AnyStorage) -> None:
    keys = [b"%d" % each for each in range(9)]
    await storage.apply(Change(puts=tuple(Put(Space.DEAD, key, bytes(100)) for key in keys)))
    assert len(await storage.scan(Space.DEAD, b"", most=900)) == 9
    assert len(await storage.scan(Space.DEAD, b"", limit=8, most=800)) == 8
    assert len(await storage.get_many(Space.DEAD, keys, most=900)) == 9
    with pytest.raises(TooLarge, match="limit"):
        await storage.scan(Space.DEAD, b"", most=899)
    for asked in (keys, [keys[0]] * 9):
        with pytest.raises(TooLarge, match="fewer keys"):
            await storage.get_many(Space.DEAD, asked, most=899)
    assert await storage.get_many(Space.DEAD, [b"x"] * 9, most=0) == [None] * 9


async def test_a_prefix_of_a_tuple_finds_its_rows_and_no_others(storage: AnyStorage) -> None:
    rows = [pack("f", "s", 1), pack("f", "s", 2), pack("f", "sx", 1), pack("fs", 1)]
    await storage.apply(Change(puts=tuple(Put(Space.PARKED, key, b"") for key in rows)))
    prefix = pack("f", "s")
    assert [key for key, _ in await storage.scan(Space.PARKED, prefix, after(prefix))] == rows[:2]


async def test_everything_is_still_there_after_closing_and_opening(
    storage_driver: str, place: Place
) -> None:
    first = await STORAGES[storage_driver](place)
    await first.apply(Change(puts=tuple(Put(Space.STATE, b"%d" % n, b"v") for n in range(100))))
    await first.close()
    again = await STORAGES[storage_driver](place)
    assert len(await again.scan(Space.STATE, b"")) == 100
    await again.close()


async def test_closing_finishes_what_was_accepted(storage_driver: str, place: Place) -> None:
    first = await STORAGES[storage_driver](place)
    pending = asyncio.gather(*(first.apply(put(b"%d" % n, b"v")) for n in range(700)))
    await asyncio.wait([asyncio.ensure_future(pending)], timeout=0)
    await first.close()
    await pending
    again = await STORAGES[storage_driver](place)
    assert len(await again.scan(Space.STATE, b"")) == 700
    await again.close()


async def test_a_closed_store_refuses_with_its_name(storage_driver: str, place: Place) -> None:
    closed = await STORAGES[storage_driver](place)
    await closed.close()
    await closed.close()
    with pytest.raises(Unavailable, match="closed"):
        await closed.apply(put(b"key", b"value"))
    with pytest.raises(Unavailable, match="closed"):
        await closed.get(Space.STATE, b"key")


KEYS = st.sampled_from([b"", b"a", b"b", b"ab", b"\x00", b"\xff", b"\xff\xff"])
VALUES = st.binary(max_size=3)
OPERATIONS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.tuples(KEYS, st.one_of(st.none(), VALUES))),
        st.dictionaries(KEYS, VALUES, max_size=3),
        st.lists(KEYS, max_size=2),
    ),
    max_size=12,
)


@pytest.mark.parametrize("together", [False, True], ids=["one-by-one", "together"])
@settings(max_examples=25, deadline=None)
@given(operations=OPERATIONS)
def test_any_run_of_changes_equals_a_dictionary(
    storage_driver_name: str,
    together: bool,
    operations: list[tuple[tuple[bytes, bytes | None] | None, dict[bytes, bytes], list[bytes]]],
) -> None:
    model: dict[bytes, bytes] = {}
    expected: list[bool] = []
    changes: list[Change] = []
    for check, puts, deletes in operations:
        gone = [key for key in deletes if key not in puts]
        holds = check is None or (
            check[0] not in model
            if check[1] is None
            else model.get(check[0], b"\x01").startswith(check[1]) and check[0] in model
        )
        expected.append(holds)
        if holds:
            model.update(puts)
            for key in gone:
                model.pop(key, None)
        changes.append(
            Change(
                checks=() if check is None else (Check(Space.STATE, *check),),
                puts=tuple(Put(Space.STATE, *pair) for pair in puts.items()),
                deletes=tuple(Delete(Space.STATE, key) for key in gone),
            )
        )

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            storage = await STORAGES[storage_driver_name](Place(Path(folder), ManualClock()))
            if together:
                results = await asyncio.gather(*map(storage.apply, changes), return_exceptions=True)
            else:
                results = []
                for change in changes:
                    results += await asyncio.gather(storage.apply(change), return_exceptions=True)
            assert [not isinstance(result, Conflict) for result in results] == expected
            assert await storage.scan(Space.STATE, b"") == sorted(model.items())
            for key in (b"", b"a", b"ab", b"\xff"):
                assert await storage.get(Space.STATE, key) == model.get(key)
            await storage.close()

    asyncio.run(run())


@pytest.fixture(scope="module", params=sorted(STORAGES))
def storage_driver_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_settled_returns_after_every_change_handed_in_before(storage: AnyStorage) -> None:
    handed_in = [asyncio.ensure_future(storage.apply(put(b"%d" % n, b"v"))) for n in range(50)]
    await asyncio.sleep(0)
    await storage.settled()
    assert all(change.done() for change in handed_in)
    assert len(await storage.scan(Space.STATE, b"")) == 50
