"""A key that comes again finds its first request, and nothing else; whatever dies in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.delivery.calls.idempotency import (
    DIGEST_BYTES,
    KeyReused,
    KeyTurns,
    RequestRecorder,
    UnderWay,
    opened,
    sealed,
)
from headrace.delivery.commit.committer import Committer
from headrace.delivery.publisher import Publisher
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.effects import Change
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Position
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker

ONE, OTHER = b"1" * DIGEST_BYTES, b"2" * DIGEST_BYTES
TEA = Event(b'"tea"', id="k")


class Moved(SystemClock):
    """A wall clock that can be moved on."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


class Desk:
    """Requests kept in memory."""

    def __init__(self) -> None:
        self.clock = Moved()
        self.storage = MemoryStorage(self.clock)
        self.broker = MemoryBroker(self.storage, clock=self.clock)
        committer = Committer(self.storage)
        self.keeping = RequestRecorder(
            Publisher(self.broker, committer),
            committer=committer,
            broker=self.broker,
            clock=self.clock,
            entropy=SystemEntropy(),
        )

    async def open(self) -> None:
        await self.broker.declare(
            StreamSpec(name="kept", owner="desk", partitions=1, dedupe_window=60.0)
        )

    async def keep(self, digest: bytes, event: Event = TEA) -> tuple[Position | None, bool]:
        return await self.keeping.keep(
            "kept",
            event,
            mark=b"mark " + (event.id or "").encode(),
            digest=digest,
            seconds=60.0,
            origin="http",
        )

    async def count(self) -> int:
        return (await self.broker.extent("kept", 0)).high


def test_a_repetition_finds_where_the_first_stands_behind_what_came_with_it() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        names = [f"k{number}" for number in range(50)]
        kept = await asyncio.gather(
            *(desk.keep(ONE, Event(b"1", id=name)) for name in names),
            *(desk.keep(ONE, Event(b"1", id=name)) for name in names),
        )
        assert await desk.count() == 50
        again = [await desk.keep(ONE, Event(b"1", id=name)) for name in names]
        assert [each[1] for each in kept[:50]] == [False] * 50
        assert [each[1] for each in (*kept[50:], *again)] == [True] * 100
        assert kept[:50] == [(each[0], False) for each in again]

    asyncio.run(story())


def test_another_request_with_the_same_key_is_refused_and_leaves_nothing() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        await desk.keep(ONE)
        with pytest.raises(KeyReused, match="make a new key"):
            await desk.keep(OTHER)
        assert await desk.count() == 1

    asyncio.run(story())


def test_of_two_requests_that_come_at_once_with_one_key_one_is_refused() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        found = await asyncio.gather(desk.keep(ONE), desk.keep(OTHER), return_exceptions=True)
        assert [type(each) for each in found if isinstance(each, Exception)] == [KeyReused]
        assert await desk.count() == 1

    asyncio.run(story())


def test_a_key_is_free_again_once_it_is_forgotten() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        await desk.keep(ONE)
        desk.clock.ahead = 61_000_000
        assert (await desk.keep(OTHER))[1] is False
        assert await desk.count() == 2

    asyncio.run(story())


def test_a_change_that_does_not_land_leaves_neither_mark_nor_event() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        apply = desk.storage.apply

        async def lost(change: Change) -> Any:
            raise Unavailable("the disk is away")

        desk.storage.apply = lost  # type: ignore[method-assign]  # the disk, not the code
        with pytest.raises(Unavailable):
            await desk.keep(ONE)
        desk.storage.apply = apply  # type: ignore[method-assign]
        assert await desk.count() == 0
        assert (await desk.keep(OTHER))[1] is False

    asyncio.run(story())


def test_what_was_kept_before_keys_had_marks_is_still_known_as_repeated() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.open()
        await Publisher(desk.broker, Committer(desk.storage)).publish("kept", [TEA])
        assert await desk.keep(ONE) == (None, True)
        assert await desk.count() == 1

    asyncio.run(story())


def test_an_answer_is_remembered_with_what_was_asked() -> None:
    assert opened(sealed(ONE, b"[1]"), ONE) == b"[1]"
    assert opened(sealed(b"", b"[1]"), ONE) == b"[1]"
    assert opened(b"[1]", ONE) == b"[1]"
    with pytest.raises(KeyReused):
        opened(sealed(ONE, b"[1]"), OTHER)


def test_one_request_of_a_key_is_answered_at_a_time() -> None:
    turns = KeyTurns()
    with turns.take(b"k", ONE):
        with pytest.raises(UnderWay), turns.take(b"k", ONE):
            pass
        with pytest.raises(KeyReused), turns.take(b"k", OTHER):
            pass
        with turns.take(b"other", ONE):
            pass
    with turns.take(b"k", OTHER):
        pass
