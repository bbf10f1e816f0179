"""What an instance asks for at once is bounded, however often it names the same key."""

from __future__ import annotations

import pytest

from headrace.delivery.hostcalls import StateReader
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import TooLarge
from headrace.model.policy import MAX_ANSWER_BYTES, MAX_ASKED_KEYS
from headrace.model.stores import StoreAddress
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.state.rows import encode_row, rows_of

STORE = StoreAddress("shop", "shop.f")
BIG = bytes(900_000)
TOO_MANY = MAX_ANSWER_BYTES // len(BIG) + 1


async def calls_on(count: int, value: bytes) -> StateReader:
    """State with so many keys of that value."""
    storage = MemoryStorage(SystemClock())
    rows = [
        Put(Space.STATE, rows_of(STORE).key(f"k/{n:05}"), encode_row(1, value, 0))
        for n in range(count)
    ]
    await storage.apply(Change((), tuple(rows)))
    return StateReader(storage, SystemClock())


async def test_values_that_are_too_large_together_are_refused() -> None:
    calls = await calls_on(TOO_MANY, BIG)
    every = [f"k/{n:05}" for n in range(TOO_MANY)]
    for keys in (every, ["k/00000"] * TOO_MANY):
        with pytest.raises(TooLarge, match="fewer keys"):
            await calls.read_state(STORE, keys)
        assert len(await calls.read_state(STORE, keys[1:])) == TOO_MANY - 1


async def test_a_page_of_large_values_is_a_short_one() -> None:
    calls = await calls_on(TOO_MANY, BIG)
    found: list[str] = []
    begin: str | None = ""
    while begin is not None:
        page = await calls.scan_state(STORE, "k/", begin, MAX_ASKED_KEYS)
        assert 0 < len(page.rows) < TOO_MANY
        found += (key for key, _, _ in page.rows)
        begin = page.seen.last
    assert found == [f"k/{n:05}" for n in range(TOO_MANY)]


async def test_keys_that_are_too_many_are_refused() -> None:
    calls = await calls_on(1, b"1")
    keys = ["k/00000"] * MAX_ASKED_KEYS
    assert await calls.read_state(STORE, keys) == [(1, b"1")] * MAX_ASKED_KEYS
    with pytest.raises(TooLarge, match="10,001 keys"):
        await calls.read_state(STORE, [*keys, "one more"])
