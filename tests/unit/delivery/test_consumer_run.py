"""What a run that consumes by itself may fetch and land, whatever its child asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.unit.delivery.making import engine_over, publish_checks_of

from headrace.delivery.assignment import consumer_run
from headrace.delivery.assignment.consumer_run import ConsumerRun, ConsumerRuns
from headrace.delivery.positions import claim, decode_position, encode_position, position_key
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Progress, Put, Space
from headrace.model.errors import Conflict, Fenced, Misuse, Refused
from headrace.model.event import Event
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.outcome import Cause, Failure, Returned, StateRead, StateWrite
from headrace.model.policy import MAX_HOPS
from headrace.model.record import Append, Chunk, encode_events
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker

SPEC = FunctionSpec(name="shop.drain", app="shop")


class Rig:
    """A store, a log with `orders` (two partitions), `done` and another app's `theirs`."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.storage = MemoryStorage(self.clock)
        self.broker = MemoryBroker(self.storage, clock=self.clock)

    async def publish(self, partition: int, *numbers: int, hops: int = 0) -> None:
        facts = [Event(str(number).encode(), f"k{partition}") for number in numbers]
        origin = "o" if hops else ""
        append = Append("orders", partition, len(facts), encode_events(facts), hops, origin)
        await self.storage.apply(Change(appends=(append,)))

    async def consumer(self, **settings: Any) -> ConsumerRun:
        claims = {
            partition: await claim(
                self.storage,
                self.broker,
                function=SPEC.name,
                stream="orders",
                partition=partition,
                start="earliest",
            )
            for partition in (0, 1)
        }
        given: dict[str, Any] = {
            "token": 7,
            "ends": self.clock.monotonic() + 60,
            "engine": engine_over(self.storage, self.broker, self.clock),
            "publish_checks": publish_checks_of(self.broker),
        } | settings
        return ConsumerRun(SPEC, "orders", claims, **given)

    async def progress(self, partition: int) -> Progress:
        row = await self.storage.get(Space.POSITIONS, position_key(SPEC.name, "orders", partition))
        assert row is not None
        return decode_position(row).progress

    async def done(self) -> list[Chunk]:
        return await self.broker.fetch("done", 0, 0, events=100, size=1 << 20)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    found = Rig()
    for name, partitions, owner in (("orders", 2, "shop"), ("done", 1, "shop"), ("theirs", 1, "x")):
        await found.broker.declare(StreamSpec(name=name, partitions=partitions, owner=owner))
    yield found
    await found.broker.close()


def _output(stream: str = "done", hops: int = 0) -> Append:
    return Append(stream, 0, 1, encode_events([Event(b"1")]), hops, "mine")


def _numbers(chunks: list[Chunk]) -> list[int]:
    return [int(event.value) for chunk in chunks for event in chunk.events()]


async def test_a_commit_moves_every_position_and_appends_with_the_platforms_lineage(
    rig: Rig,
) -> None:
    await rig.publish(0, 1, 2, 3)
    await rig.publish(1, 4, hops=5)
    consumer = await rig.consumer()
    chunks, lag = await consumer.fetch(2)
    more, left = await consumer.fetch(100)
    assert sorted(_numbers(chunks + more)) == [1, 2, 3, 4]
    assert consumer.given == 4
    assert (lag, left) == (2 if len(_numbers(chunks)) == 2 else 3, 0)
    await consumer.land(Returned(appends=(_output(hops=99),)))
    assert [(chunk.hops, chunk.origin) for chunk in await rig.done()] == [(6, "o")]
    assert (await rig.progress(0)).watermark == 3
    assert (await rig.progress(1)).watermark == 1


async def test_what_is_not_committed_is_fetched_again_by_the_next_run(rig: Rig) -> None:
    await rig.publish(0, 1, 2, 3)
    first = await rig.consumer()
    await first.fetch(1)
    await first.land(Returned())
    await first.fetch(1)
    first.close()
    second = await rig.consumer()
    assert _numbers((await second.fetch(10))[0]) == [2, 3]
    with pytest.raises(Fenced, match="holds its partitions no more"):
        await first.fetch(1)


async def test_a_run_whose_partitions_were_claimed_anew_lands_nothing(rig: Rig) -> None:
    await rig.publish(0, 1)
    zombie = await rig.consumer()
    await zombie.fetch(10)
    await rig.consumer()
    with pytest.raises(Fenced):
        await zombie.land(Returned(appends=(_output(),)))
    with pytest.raises(Fenced):
        await zombie.fetch(1)
    assert await rig.done() == []
    assert (await rig.progress(0)).watermark == 0


async def test_state_that_changed_under_it_keeps_everything_from_landing(rig: Rig) -> None:
    await rig.publish(0, 1)
    consumer = await rig.consumer()
    await consumer.fetch(10)
    with pytest.raises(Conflict):
        await consumer.land(
            Returned(
                appends=(_output(),),
                reads=(StateRead("n", 3),),
                writes=(StateWrite("n", b"1"),),
            )
        )
    assert await rig.done() == []
    assert (await rig.progress(0)).watermark == 0


@pytest.mark.parametrize(
    "returned",
    [
        Returned(appends=(_output("theirs"),)),
        Returned(appends=(msgspec.structs.replace(_output(), partition=9),)),
        Returned(appends=(msgspec.structs.replace(_output(), later=b"row"),)),
        Returned(error=Cause("ValueError", "no")),
        Returned(failures=(Failure(0, Cause("Failed", "no")),)),
    ],
)
async def test_what_no_function_may_do_is_refused_and_ends_the_run(
    rig: Rig, returned: Returned
) -> None:
    await rig.publish(0, 1)
    consumer = await rig.consumer()
    await consumer.fetch(10)
    with pytest.raises((Refused, Misuse)):
        await consumer.land(returned)
    with pytest.raises(Fenced):
        await consumer.land(Returned())
    assert (await rig.progress(0)).watermark == 0


async def test_finished_offsets_above_the_watermark_are_not_given_again(rig: Rig) -> None:
    await rig.publish(0, *range(6))
    row = encode_position(1, Progress(1, (2, 3)))
    key = position_key(SPEC.name, "orders", 0)
    await rig.storage.apply(Change(puts=(Put(Space.POSITIONS, key, row),)))
    consumer = await rig.consumer()
    assert _numbers((await consumer.fetch(2))[0]) == [1]
    await consumer.land(Returned())
    assert await rig.progress(0) == Progress(4)
    found, lag = await consumer.fetch(10)
    assert (_numbers(found), lag) == ([4, 5], 0)
    await consumer.land(Returned())
    assert await rig.progress(0) == Progress(6)


async def test_a_chain_that_does_not_end_is_a_dead_letter_and_never_lost(rig: Rig) -> None:
    await rig.publish(0, 1, 2, hops=MAX_HOPS + 1)
    consumer = await rig.consumer()
    assert await consumer.fetch(10) == ([], 0)
    await consumer.land(Returned())
    dead = await rig.storage.scan(Space.DEAD, b"")
    assert len(dead) == 2
    assert (await rig.progress(0)).watermark == 2


async def test_nothing_is_given_after_a_recall_or_the_lifespan(rig: Rig) -> None:
    await rig.publish(0, 1)
    recalled, late = await rig.consumer(), await rig.consumer(ends=rig.clock.monotonic())
    recalled.recall()
    assert await recalled.fetch(10) == ([], 1)
    assert await late.fetch(10) == ([], 1)


async def test_too_much_without_a_commit_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_run, "MAX_UNCOMMITTED", 4)
    await rig.publish(0, *range(10))
    consumer = await rig.consumer()
    assert await consumer.fetch(-5) == ([], 10)
    await consumer.fetch(3)
    with pytest.raises(Misuse, match="without a commit"):
        await consumer.fetch(3)
    await consumer.land(Returned())
    assert _numbers((await consumer.fetch(3))[0]) == [3, 4, 5]


async def test_a_child_that_asks_for_two_things_at_once_gets_one_after_the_other(rig: Rig) -> None:
    await rig.publish(0, *range(10))
    consumer = await rig.consumer()
    answers = await asyncio.gather(
        *(consumer.fetch(2) for _ in range(5)), consumer.land(Returned())
    )
    found = [number for answer in answers[:5] if answer for number in _numbers(answer[0])]
    assert found == list(range(10))


async def test_a_run_that_no_lag_started_has_nothing_to_consume() -> None:
    with pytest.raises(Fenced, match="only a `Lag` trigger"):
        await ConsumerRuns().fetch(5, 1)
