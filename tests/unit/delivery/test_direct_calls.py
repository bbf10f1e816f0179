"""What a called function publishes lands by the same rules as what a delivered one publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.unit.delivery.making import publish_checks_of

from headrace.delivery.calls.direct import CallFailed, DirectCalls
from headrace.delivery.calls.streaming import LiveAnswers
from headrace.delivery.commit.committer import Committer
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.effects import Change, Put, Space, digest_of
from headrace.model.errors import Conflict
from headrace.model.event import Event
from headrace.model.function import FunctionSpec, QueueSpec, StreamSpec
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome, Range, Returned, StateRead, StateWrite
from headrace.model.record import Append, Chunk, encode_events
from headrace.model.reply import WireReply
from headrace.model.stores import StoreAddress
from headrace.runtime.base import Run, Waiter, intercepted
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.storage.state.rows import encode_row, rows_of
from headrace.telemetry.history import RunHistory

SPEC = FunctionSpec(name="shop.price", app="shop")


class Says:
    """An instance that publishes whatever it is told to, as one that was taken over could."""

    def __init__(self) -> None:
        self.appends: tuple[Append, ...] = ()
        self.reads: tuple[StateRead, ...] = ()
        self.writes: tuple[StateWrite, ...] = ()

    def submit(self, invocation: Invocation, done: Waiter, after: Run | None = None, /) -> EndedRun:
        returned = Returned(appends=self.appends, reads=self.reads, writes=self.writes)
        asyncio.get_running_loop().call_soon(done.set_result, returned)
        return EndedRun()


class EndedRun:
    """A run that nobody can follow."""

    takes_another = False

    def cancel(self) -> bool:
        return False


class Ear:
    async def take(self, body: bytes, head: WireReply | None) -> None:
        """Nobody yields."""


class Told:
    """A waiter."""

    outcome: Outcome

    def done(self) -> bool:
        return False

    def set_result(self, result: object) -> None:
        assert isinstance(result, Returned)
        self.outcome = result

    def set_exception(self, exception: BaseException) -> None:
        raise exception


class Rig:
    def __init__(self) -> None:
        clock = SystemClock()
        self.storage = MemoryStorage(clock)
        self.says = Says()
        self.broker = MemoryBroker(self.storage, clock=clock)
        publish_checks = publish_checks_of(self.broker)
        self.direct = DirectCalls(
            {SPEC.name: SPEC},
            committer=Committer(self.storage),
            submit=intercepted(
                self.says.submit, (publish_checks.intercept({SPEC.name: SPEC}.get),)
            ),
            clock=clock,
            entropy=SystemEntropy(),
            runs=RunHistory(),
            answers=LiveAnswers(),
        )

    async def call(self, way: str) -> None:
        """Call it as the door does: by itself, with a key, live, or without waiting."""
        if way == "prompt":
            told = Told()
            begun = self.direct.begin(SPEC.name, b"1", told)
            await asyncio.sleep(0)
            assert self.direct.plain(begun, told.outcome) is None
            await self.direct.finish(begun)
        else:
            key, listener = "k" * (way == "keyed"), Ear() if way == "live" else None
            await self.direct.call(SPEC.name, b"1", key=key, listener=listener)

    async def held(self, stream: str) -> list[Chunk]:
        return await self.broker.fetch(stream, 0, 0, events=100, size=1 << 20)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    found = Rig()
    for name, owner in (("own", "shop"), ("theirs", "x")):
        await found.broker.declare(StreamSpec(name=name, partitions=1, owner=owner))
    jobs = StreamSpec(name="jobs", partitions=1, owner="shop", queue=QueueSpec())
    await found.broker.declare(jobs)
    yield found
    await found.broker.close()


def said(stream: str, fact: Event, hops: int = 0) -> tuple[Append, ...]:
    return (Append(stream, 0, 1, encode_events([fact]), hops, "forged" if hops else ""),)


ways = pytest.mark.parametrize("way", ["plain", "keyed", "live", "prompt"])


@ways
async def test_a_called_function_may_not_publish_where_it_did_not_say(rig: Rig, way: str) -> None:
    rig.says.appends = said("theirs", Event(b"1"))
    with pytest.raises(CallFailed) as failed:
        await rig.call(way)
    assert failed.value.cause.kind == "Refused"
    assert await rig.held("theirs") == []
    assert await rig.storage.scan(Space.MARKS, b"") == []


@ways
async def test_a_called_function_may_not_use_a_store_that_its_app_does_not_declare(
    rig: Rig, way: str
) -> None:
    rig.says.writes = (StateWrite("k", b"1", 0, "others"),)
    with pytest.raises(CallFailed, match="does not declare") as failed:
        await rig.call(way)
    assert failed.value.cause.kind == "Refused"
    assert await rig.storage.scan(Space.STATE, b"") == []


@ways
@pytest.mark.parametrize("writes", [(), (StateWrite("other", b"1"),)], ids=["reads", "writes"])
async def test_a_call_that_listed_keys_relies_on_all_of_them(
    rig: Rig, way: str, writes: tuple[StateWrite, ...]
) -> None:
    # It saw nothing where there is a row.
    rig.says.reads = (StateRead("seat/", 0, Range("", None, 0, digest_of(()))),)
    rig.says.writes = writes
    key = rows_of(StoreAddress(SPEC.app, SPEC.name)).key("seat/1")
    await rig.storage.apply(Change(puts=(Put(Space.STATE, key, encode_row(1, b"1", 0)),)))
    with pytest.raises(Conflict):
        await rig.call(way)


@ways
async def test_a_message_that_a_called_function_delays_waits(rig: Rig, way: str) -> None:
    rig.says.appends = said("jobs", Event(b"1", headers={"headrace-delay": "60"}))
    await rig.call(way)
    assert await rig.held("jobs") == []
    assert len(await rig.storage.scan(Space.TIMERS, b"")) == 1


@ways
async def test_a_delay_that_cannot_be_fails_the_call(rig: Rig, way: str) -> None:
    rig.says.appends = said("jobs", Event(b"1", headers={"headrace-delay": "soon"}))
    with pytest.raises(CallFailed, match="`headrace-delay` of a message is 'soon'"):
        await rig.call(way)


@ways
async def test_the_lineage_is_the_platforms_word(rig: Rig, way: str) -> None:
    rig.says.appends = said("own", Event(b"1"), hops=60)
    await rig.call(way)
    (chunk,) = await rig.held("own")
    assert chunk.hops == 1
    assert chunk.origin.startswith("call/")
