"""A run that has listed state relies on all of it: what is there, and that nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from headrace.delivery import hostcalls
from headrace.delivery.commit.changes import change_of
from headrace.delivery.hostcalls import StateReader
from headrace.model.effects import Change, Delete, Effects, Put, Space
from headrace.model.errors import Conflict
from headrace.model.outcome import Scanned, StateRead, StateWrite
from headrace.model.stores import StoreAddress
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.state.rows import encode_row, rows_of
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

STORE = StoreAddress("shop", "shop.f")


class Rig:
    """The store of a function, and a way to scan it and to commit what relied on the scan."""

    def __init__(self, clock: VirtualClock) -> None:
        self.storage = MemoryStorage(clock)
        self.calls = StateReader(self.storage, clock)
        self.tokens = iter(range(100, 1_000))

    def scan(self, prefix: str, limit: int = 100, begin: str = "") -> Scanned:
        return asyncio.run(self.calls.scan_state(STORE, prefix, begin, limit))

    def put(self, key: str, *, expires: int = 0) -> None:
        row = encode_row(next(self.tokens), b"v", expires)
        change = Change(puts=(Put(Space.STATE, rows_of(STORE).key(key), row),))
        asyncio.run(self.storage.apply(change))

    def drop(self, key: str) -> None:
        change = Change(deletes=(Delete(Space.STATE, rows_of(STORE).key(key)),))
        asyncio.run(self.storage.apply(change))

    def commit(self, prefix: str, scanned: Scanned) -> None:
        """What a run does that has listed `prefix` and put a key of it.

        Raises:
            Conflict: It relied on what is no longer so.
        """
        reads = (StateRead(prefix, 0, scanned.seen),)
        writes = (StateWrite(f"{prefix}mine", b"v"),)
        effects = Effects(
            function=STORE.function,
            app=STORE.app,
            reads=reads,
            writes=writes,
            token=next(self.tokens),
        )
        asyncio.run(self.storage.apply(change_of(effects, {})[0]))


@pytest.fixture
def rig() -> Rig:
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    loop.close()
    return Rig(clock)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda rig: rig.put("seat/c"),
        lambda rig: rig.put("seat/a"),
        lambda rig: rig.drop("seat/b"),
        lambda rig: rig.put("seat/"),
    ],
    ids=["appeared", "changed", "vanished", "the prefix itself"],
)
def test_what_changes_under_a_listed_prefix_is_a_conflict(
    rig: Rig, meanwhile: Callable[[Rig], None]
) -> None:
    rig.put("seat/a")
    rig.put("seat/b")
    scanned = rig.scan("seat/")
    meanwhile(rig)
    with pytest.raises(Conflict):
        rig.commit("seat/", scanned)
    rig.commit("seat/", rig.scan("seat/"))


def test_what_changes_beside_it_is_not(rig: Rig) -> None:
    scanned = rig.scan("seat/")
    assert scanned.rows == []
    rig.put("seat")
    rig.put("seat0")
    rig.commit("seat/", scanned)


def test_a_scan_that_ended_early_relies_on_what_it_saw_alone(rig: Rig) -> None:
    for name in "abcd":
        rig.put(f"seat/{name}")
    scanned = rig.scan("seat/", limit=2)
    assert [key for key, _, _ in scanned.rows] == ["seat/a", "seat/b"]
    rig.put("seat/c")
    rig.commit("seat/", scanned)
    rig.put("seat/aa")
    with pytest.raises(Conflict):
        rig.commit("seat/", scanned)


def test_what_has_expired_does_not_hide_what_is_behind_it(rig: Rig) -> None:
    for name in "abc":
        rig.put(f"seat/{name}", expires=1)
    rig.put("seat/d")
    scanned = rig.scan("seat/", limit=2)
    assert [key for key, _, _ in scanned.rows] == ["seat/d"]
    rig.commit("seat/", scanned)


def test_a_scan_looks_at_so_many_rows_at_most(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcalls, "MAX_SCAN", 3)
    for name in "abcd":
        rig.put(f"seat/{name}", expires=1)
    scanned = rig.scan("seat/", limit=2)
    assert (scanned.rows, scanned.seen.count, scanned.seen.last) == ([], 3, "seat/c")
