"""Where order is per key: a key waits for its commit, and stale state costs its own unit only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest
from msgspec.structs import replace
from tests.unit.delivery.test_worker import Rig

from headrace.delivery.positions import stored
from headrace.model.effects import Change, Put, Space
from headrace.model.event import Event
from headrace.model.function import FunctionSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Cause, Outcome, Returned, StateRead, StateWrite
from headrace.model.stores import StoreAddress
from headrace.storage.state.rows import decode_row, encode_row, rows_of
from headrace.testing.virtual_time import VirtualLoop


class Noting:
    """An invoker that notes the keys it was handed, and counts them in state where it is told to."""

    def __init__(self, rig: Rig, *, counts: bool = False, shared: bool = False) -> None:
        self.keys: list[str | None] = []
        self.fresh: set[bool] = set()
        self._rig = rig
        self._counts = counts
        self._shared = shared

    async def invoke(self, invocation: Invocation) -> Outcome:
        assert isinstance(invocation, BatchInvocation)
        self.fresh.add(invocation.fresh)
        keys = [event.key for chunk in invocation.chunks for event in chunk.events()]
        self.keys += keys
        if not self._counts:
            return Returned()
        # All events of one key count in one row, which others write too.
        key = "of/all" if self._shared else f"of/{keys[0]}"
        row = await self._rig.storage.get(Space.STATE, _key(self._rig, key))
        version, value = (0, b"0") if row is None else decode_row(row)[::2]
        await self._rig.clock.sleep(0.1)
        return Returned(
            reads=(StateRead(key, version),),
            writes=(StateWrite(key, b"%d" % (int(value) + len(keys)), 0),),
        )

    async def close(self) -> None:
        return


def _key(rig: Rig, key: str) -> bytes:
    return rows_of(StoreAddress(rig.spec.app, rig.spec.name)).key(key)


def keyed(rig: Rig, invoker: Noting, **more: int) -> FunctionSpec:
    """The rig's function, by key."""
    rig.invoker = invoker  # type: ignore[assignment]  # it counts keys instead of runs
    rig.spec = replace(rig.spec, order="key", **{"parallelism": 4, **more})
    return rig.spec


def driven(work: Callable[[VirtualLoop], Coroutine[None, None, None]]) -> None:
    """On virtual time."""
    loop = VirtualLoop()
    try:
        loop.drive(work(loop))
    finally:
        loop.close()


@pytest.mark.parametrize("parallelism", [1, 4])
def test_the_next_run_of_a_key_begins_when_the_commit_before_has_landed(parallelism: int) -> None:
    async def work(loop: VirtualLoop) -> None:
        going = asyncio.Event()

        async def faults(moment: str) -> None:
            if moment == "before":
                await going.wait()

        going.set()
        rig = Rig(loop, faults)
        await rig.declare()
        keys = ["a", "a", "b", "a", None, None]
        await rig.publisher.publish("s", [Event(b"1", key) for key in keys])
        noting = Noting(rig)
        keyed(rig, noting, parallelism=parallelism)
        worker = await rig.claim()
        going.clear()
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(5)
        assert Counter(noting.keys) == {"a": 1, "b": 1, None: 2}
        going.set()
        await rig.clock.sleep(5)
        assert Counter(noting.keys) == Counter(keys)
        worker.stop()
        await running
        await rig.close()
        assert not rig.failures

    driven(work)


def test_stale_state_costs_its_own_unit_and_nobody_else() -> None:
    async def work(loop: VirtualLoop) -> None:
        rig = Rig(loop)
        await rig.declare()
        keys = ["a", "b", "c", "d", "b", "c", "d", "e", "f"]
        await rig.publisher.publish("s", [Event(b"1", key) for key in keys])
        noting = Noting(rig, counts=True)
        keyed(rig, noting)
        worker = await rig.claim()
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(0.05)
        # Somebody else writes what the first run has read.
        other = Put(Space.STATE, _key(rig, "of/a"), encode_row(77, b"40", 0))
        await rig.storage.apply(Change(puts=(other,)))
        await rig.clock.sleep(5)
        worker.stop()
        await running
        assert Counter(noting.keys) == Counter(keys) + Counter("a")
        assert noting.fresh == {True}
        assert (await stored(rig.storage, rig.spec.name, "s", 0))[1].progress.watermark == len(keys)
        counted = {}
        for key in "abcdef":
            row = await rig.storage.get(Space.STATE, _key(rig, f"of/{key}"))
            assert row is not None
            counted[key] = int(decode_row(row)[2])
        assert counted == {"a": 41, "b": 2, "c": 2, "d": 2, "e": 1, "f": 1}
        await rig.close()
        assert not rig.failures

    driven(work)


def test_where_all_keys_count_in_one_row_few_runs_are_in_vain() -> None:
    async def work(loop: VirtualLoop) -> None:
        in_turn = asyncio.Lock()

        async def faults(moment: str) -> None:
            if moment == "before":
                async with in_turn:
                    await rig.clock.sleep(0.05)

        rig = Rig(loop)
        await rig.declare()
        events = 200
        await rig.publisher.publish("s", [Event(b"1", f"k{n % 40}") for n in range(events)])
        noting = Noting(rig, counts=True, shared=True)
        keyed(rig, noting)
        worker = await rig.claim()
        rig.storage.faults = faults
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(600)
        worker.stop()
        await running
        row = await rig.storage.get(Space.STATE, _key(rig, "of/all"))
        assert row is not None
        assert int(decode_row(row)[2]) == events
        assert len(noting.keys) < 1.5 * events
        await rig.close()
        assert not rig.failures

    driven(work)


class Halving(Noting):
    """Fails where it is handed more than one event at once."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        if invocation.size > 1:
            return Returned(error=Cause("Full", "one at a time"))
        return await super().invoke(invocation)


@pytest.mark.parametrize("counts", [False, True])
def test_a_half_waits_for_the_commit_of_the_other_half(counts: bool) -> None:
    async def work(loop: VirtualLoop) -> None:
        going = asyncio.Event()

        async def faults(moment: str) -> None:
            if moment == "before":
                await going.wait()

        going.set()
        rig = Rig(loop, faults)
        await rig.declare()
        await rig.publisher.publish("s", [Event(b"1", "a"), Event(b"1", "a")])
        halving = Halving(rig, counts=counts)
        keyed(rig, halving, batch_size=10)
        worker = await rig.claim()
        going.clear()
        running = rig.tasks.start(worker.run(), name="worker")
        await rig.clock.sleep(5)
        assert halving.keys == ["a"]
        going.set()
        await rig.clock.sleep(5)
        assert halving.keys == ["a", "a"]
        worker.stop()
        await running
        await rig.close()
        assert not rig.failures

    driven(work)
